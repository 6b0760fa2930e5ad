"""What each file of this folder offers: the interface of a runtime and of an open model. Knows no runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from emb.spec.contract import TensorContract

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOperation:
    """One operation as the runtime executes it.

    name: in the format's own terms (CONV_2D, QLinearConv).  delegate: who took it from the runtime, None for nobody.
    """

    name: str
    delegate: str | None = None


class Interpreter(Protocol):
    """A model opened in this process, batch 1, one input, one output. Lives in the worker alone."""

    @property
    def input(self) -> TensorContract: ...

    @property
    def output(self) -> TensorContract: ...

    def run(self, x: Array) -> Array:
        """x: the input's shape and dtype. Returns the output's shape and dtype, an array of its own."""
        ...

    def invocation(self, x: Array) -> Callable[[], object]:
        """Place x in the input; the call returned runs the model on it and nothing else, which is what latency means.

        Good until the next `run` or `invocation`.
        """
        ...

    def operations(self) -> tuple[RuntimeOperation, ...]:
        """What is executed, after the runtime's own rewriting of the graph."""
        ...


class Runtime(Protocol):
    """A public module of this folder. Only `load` and `open_model` import the runtime's library."""

    FORMATS: tuple[str, ...]
    """File formats it reads: "tflite", "onnx"."""

    MODES: tuple[str, ...]
    """Ways of running a model, the default one first."""

    def version(self) -> str | None:
        """Of the installed distribution, None if there is none."""
        ...

    def absence(self) -> str | None:
        """Why it cannot be used here and how to get it; None if it can."""
        ...

    def refusal(self, scheme: str) -> str | None:
        """Why it must not run models of this quantization scheme; None if it may."""
        ...

    def load(self) -> None:
        """Import the runtime's library."""
        ...

    def open_model(self, path: Path, *, mode: str, threads: int) -> Interpreter:
        """Raises ModelError for a model emb cannot feed, anything else for one the runtime refuses."""
        ...
