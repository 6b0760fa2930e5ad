"""On what a training runs: the Keras backend, and how many devices. Starts no training and imports no Keras."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from emb.errors import SpecError
from emb.registry import nearest

Backend = Literal["tensorflow", "jax"]
_TOOLS: dict[Backend, tuple[str, ...]] = {"tensorflow": ("tensorflow",), "jax": ("jax", "jaxlib")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """backend: of Keras, for the training alone; TensorFlow exports, whatever has trained.

    devices: how many GPUs (or, without any, CPU devices) share each batch; all that the backend finds for "all".
    """

    backend: Backend = "tensorflow"
    devices: int | Literal["all"] = 1

    @property
    def tools(self) -> tuple[str, ...]:
        """Distributions whose versions decide what a training gives."""
        return ("keras", *_TOOLS[self.backend], "numpy")


def choose_engine(*, backend: str | None, devices: int | str | None) -> Engine:
    """The engine that is asked for; `backend` wins over the environment's KERAS_BACKEND, TensorFlow is the default.

    devices: a number as int or text, or "all".
    Raises SpecError for a backend that emb does not train on or that is not installed, and for devices that no
    backend or not this one has.
    """
    wanted = backend or os.environ.get("KERAS_BACKEND") or "tensorflow"
    known = get_args(Backend)
    if wanted not in known:
        raise SpecError(
            f"emb does not train on the backend {wanted!r}",
            why="" if backend else "the environment says so: KERAS_BACKEND",
            fix=nearest(wanted, known),
        )
    engine = Engine(backend=wanted, devices=_devices(devices))
    if engine.backend == "tensorflow" and engine.devices != 1:
        from emb.train.distribution import several_need_jax

        raise several_need_jax(engine.devices)
    # None in sys.modules and no distribution both come out as None here.
    if engine.backend == "jax" and find_spec("jax") is None:
        raise SpecError(
            "the JAX backend is not installed",
            fix="pip install 'emb[jax]', or train on TensorFlow: --backend tensorflow",
        )
    return engine


@contextmanager
def keras_on_tensorflow() -> Iterator[None]:
    """Within the block Keras, if it is imported now, runs on TensorFlow, whatever KERAS_BACKEND says.

    Raises SpecError if this process has imported Keras on another backend, which it cannot change any more.
    """
    keras = sys.modules.get("keras")
    if keras is not None and (there := keras.backend.backend()) != "tensorflow":
        raise SpecError(
            f"Keras already runs on {there} in this process",
            why="emb exports through TensorFlow, and Keras cannot change its backend once it is imported",
            fix=f"use emb in a process that has not imported keras; to train on {there}, give it as the backend",
        )
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # What the user has set stays.
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Else TensorFlow takes the whole GPU while it exports, and a training on JAX beside it finds none of it left.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        yield
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


def _devices(wanted: int | str | None) -> int | Literal["all"]:
    if wanted is None:
        return 1
    if wanted == "all":
        return "all"
    try:
        number = int(wanted)
    except ValueError:
        number = 0
    if number < 1:
        raise SpecError(f"there are no {wanted!r} devices", fix="give a number from 1 on, or all")
    return number
