"""Networks, each converted once per session, and how to run what was written."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_SPEC = importlib.util.spec_from_file_location("networks", Path(__file__).with_name("networks.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_NETWORKS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_NETWORKS)


@pytest.fixture(scope="session")
def networks() -> Any:
    """The module networks.py."""
    return _NETWORKS


@pytest.fixture(scope="session")
def built() -> Any:
    """built(name): the Keras model, once."""
    return cache(_NETWORKS.build)


@pytest.fixture(scope="session")
def float_file(built: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """float_file(name, format): path of the float32 file, written once."""
    folder = tmp_path_factory.mktemp("float")

    @cache
    def write(name: str, file_format: str) -> Path:
        from emb.export import onnx, tflite

        path = folder / f"{name}.{file_format}"
        {"tflite": tflite, "onnx": onnx}[file_format].export(built(name), path)
        return path

    return write


def run_tflite(path: Path, images: NDArray[np.uint8], *, reference: bool = True) -> NDArray[np.float64]:
    """Real scores through LiteRT, (images, classes); the pixels as the file's own quantization wants them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    given, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in images:
        interpreter.set_tensor(given["index"], _stored(image, given["dtype"], *given["quantization"])[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(scores["index"])[0])
    return _real(np.array(rows), *scores["quantization"])


def run_onnx(path: Path, images: NDArray[np.uint8], *, optimized: Path | None = None) -> NDArray[np.float64]:
    """Real scores through ONNX Runtime; optimized: where it writes the graph that it runs."""
    import onnxruntime

    from emb.export import onnx

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given, scores = onnx.border(path)
    rows = []
    for image in images:
        channels_first = _stored(image, given.dtype, given.scale or 0, given.zero_point or 0).transpose(2, 0, 1)
        rows.append(session.run(None, {given.name: channels_first[np.newaxis]})[0][0])
    return _real(np.array(rows), scores.scale or 0, scores.zero_point or 0)


def _stored(image: NDArray[np.uint8], dtype: Any, scale: float, zero_point: int) -> NDArray[np.generic]:
    if not scale:
        return image.astype(dtype)
    return (np.rint(image / scale) + zero_point).astype(dtype)


def _real(stored: NDArray[np.generic], scale: float, zero_point: int) -> NDArray[np.float64]:
    real = stored.astype(np.float64)
    return (real - zero_point) * scale if scale else real


@pytest.fixture(scope="session")
def run() -> Any:
    """run(path, images): real scores of a .tflite (LiteRT's reference kernels) or .onnx (ONNX Runtime)."""

    def run_file(path: Path, images: NDArray[np.uint8], **arguments: Any) -> NDArray[np.float64]:
        return (run_tflite if path.suffix == ".tflite" else run_onnx)(path, images, **arguments)

    return run_file


@pytest.fixture(scope="session")
def operations() -> Any:
    """operations(path): names of a .tflite file's operations."""
    from emb.export.tflite import operation_names

    return operation_names
