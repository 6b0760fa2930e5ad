"""ONNX Runtime on the CPU, with all of its graph optimisations."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emb.errors import ModelError
from emb.runtimes import _distribution
from emb.runtimes._interface import Array, Interpreter, RuntimeOperation
from emb.runtimes._tensors import infer_layout
from emb.spec.contract import TensorContract

FORMATS = ("onnx",)
MODES = ("default",)
_DISTRIBUTION = "onnxruntime"
_DTYPES = {"float": "float32", "double": "float64"}
_ERRORS_ONLY = 3


def version() -> str | None:
    return _distribution.installed_version(_DISTRIBUTION)


def absence() -> str | None:
    return _distribution.absence_reason(_DISTRIBUTION)


def refusal(scheme: str) -> str | None:
    """None: what cannot be run in ONNX is not exported to it."""
    return None


def load() -> None:
    importlib.import_module("onnxruntime")


def open_model(path: Path, *, mode: str, threads: int) -> Interpreter:
    return OnnxInterpreter(path, threads=threads)


class OnnxInterpreter:
    """One model, batch 1, on the CPU provider. Threads spin between operations, ONNX Runtime's default."""

    def __init__(self, path: Path, *, threads: int) -> None:
        library = importlib.import_module("onnxruntime")
        self._path = path
        self._session = library.InferenceSession(
            str(path), _options(library, threads=threads), providers=["CPUExecutionProvider"]
        )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs",
                why="emb runs models with one input, an image, and one output, a score for each class",
                fix="export the part of the model that leads from the image to the scores",
            )
        self._input = _contract(inputs[0], path, is_input=True)
        self._output = _contract(outputs[0], path, is_input=False)

    @property
    def input(self) -> TensorContract:
        return self._input

    @property
    def output(self) -> TensorContract:
        return self._output

    def run(self, x: Array) -> Array:
        result: Array = self._session.run([self._output.name], {self._input.name: x})[0]
        return result

    def invocation(self, x: Array) -> Callable[[], object]:
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input.name, x)
        binding.bind_output(self._output.name)
        return lambda: self._session.run_with_iobinding(binding)

    def operations(self) -> tuple[RuntimeOperation, ...]:
        """The operations of the graph after ONNX Runtime's optimisations, as it writes it to a file."""
        library, onnx = importlib.import_module("onnxruntime"), importlib.import_module("onnx")
        with tempfile.TemporaryDirectory(prefix="emb-") as folder:
            optimised = Path(folder) / "optimised.onnx"
            options = _options(library, threads=1)
            options.optimized_model_filepath = str(optimised)
            library.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
            graph = onnx.load(optimised).graph
        return tuple(RuntimeOperation(name=node.op_type) for node in graph.node)


def _options(library: Any, *, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return options


def _contract(argument: Any, path: Path, *, is_input: bool) -> TensorContract:
    """Scale and zero point stay None: ONNX Runtime does not tell them."""
    # A batch that the file leaves open is run as 1; any other open axis has no length emb could choose.
    shape = tuple(
        1 if axis == 0 and not isinstance(length, int) else length for axis, length in enumerate(argument.shape)
    )
    if not all(isinstance(length, int) for length in shape):
        raise ModelError(
            f"{path.name} leaves axes of {argument.name!r} open: {list(argument.shape)}",
            why="only the batch may be open; emb runs static shapes",
            fix="export the model with fixed lengths for all axes but the first",
        )
    dtype = argument.type.removeprefix("tensor(").removesuffix(")")
    return TensorContract(
        name=argument.name,
        shape=shape,
        dtype=_DTYPES.get(dtype, dtype),
        layout=infer_layout(shape, default="NCHW") if is_input else "NC",
    )
