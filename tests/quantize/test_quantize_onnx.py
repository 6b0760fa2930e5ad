"""Every scheme in ONNX: close to float, and int8 fused by ONNX Runtime into integer kernels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import DataError, ExportError, ModelError
from emb.export.onnx import border, read_model
from emb.graph.files import read
from emb.graph.sums import all_alike
from emb.quantize import SCHEMES, quantize_onnx
from emb.spec.contract import Pixels

NAMES = (
    *("lenet", "batch_norm", "residual", "inception", "mobile", "pre_activation", "leaky", "logits"),
    *("two_groups", "batch_norm_everywhere", "bottleneck"),
)
IN_ONNX = tuple(name for name in SCHEMES.names() if "onnx" in SCHEMES.get(name).SCHEME.formats)
CLOSE = {"float32": 1e-4, "float16": 2e-3, "dynamic": 0.02, "int8": 0.04, "int8-qat": 0.04}


@pytest.fixture(scope="module")
def quantized(float_file: Any, networks: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """quantized(network, scheme): path of the file, written once."""
    folder = tmp_path_factory.mktemp("quantized")

    def write(name: str, scheme: str, method: str = "minmax") -> Path:
        path = folder / f"{name}-{scheme}-{method}.onnx"
        if not path.exists():
            quantize_onnx(
                float_file(name, "onnx"),
                path,
                scheme=SCHEMES.get(scheme).SCHEME,
                calibration=networks.images(name, 32),
                method=method,
            )
        return path

    return write


@pytest.mark.parametrize("scheme", IN_ONNX)
@pytest.mark.parametrize("name", NAMES)
def test_close_to_float(name: str, scheme: str, built: Any, networks: Any, quantized: Any, run: Any) -> None:
    images = networks.images(name, 32)
    expected = np.asarray(built(name)(images.astype(np.float32), training=False))
    width = max(1.0, float(np.ptp(expected)))
    assert np.abs(run(quantized(name, scheme), images) - expected).max() <= CLOSE[scheme] * width


def test_float16_of_constants_whose_names_are_taken(networks: Any, float_file: Any, run: Any, tmp_path: Path) -> None:
    """Of hundreds of constants that a converter has numbered, some are called as another one's halves would be."""
    import onnx

    model = onnx.load(float_file("lenet", "onnx"))
    weights = [tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1]
    names = dict(zip(weights, ("w", "w_16", "w_float16", "w_cast"), strict=False))
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "half.onnx", scheme=SCHEMES.get("float16").SCHEME)
    read(tmp_path / "half.onnx")
    images = networks.images("lenet", 4)
    np.testing.assert_allclose(run(tmp_path / "half.onnx", images), run(tmp_path / "model.onnx", images), atol=2e-3)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_other_methods_of_calibration(method: str, built: Any, networks: Any, quantized: Any, run: Any) -> None:
    images = networks.images("batch_norm", 32)
    expected = np.asarray(built("batch_norm")(images.astype(np.float32), training=False))
    path = quantized("batch_norm", "int8", method)
    assert np.abs(run(path, images) - expected).max() <= CLOSE["int8"]
    assert path.read_bytes() != quantized("batch_norm", "int8").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_and_dense_layer_is_fused(
    name: str, networks: Any, quantized: Any, run: Any, tmp_path: Path
) -> None:
    optimized = tmp_path / "optimized.onnx"
    run(quantized(name, "int8"), networks.images(name, 1), optimized=optimized)
    import onnx

    operations = [node.op_type for node in onnx.load(optimized).graph.node]
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"} & set(operations)
    layers = read_model(quantized(name, "int8")).graph.node
    weighted = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in layers)
    assert sum(kind in ("QLinearConv", "QGemm", "QLinearMatMul") for kind in operations) == weighted


@pytest.mark.parametrize("name", ["residual", "mobile", "bottleneck"])
def test_sums_have_the_same_bits_on_every_processor(name: str, quantized: Any) -> None:
    graph = read(quantized(name, "int8"))
    assert any(operation.kind == "ADD" for operation in graph.operations)
    assert all_alike(graph)


def test_lenet_runs_on_integers_alone(networks: Any, quantized: Any, run: Any, tmp_path: Path) -> None:
    import onnx

    optimized = tmp_path / "optimized.onnx"
    run(quantized("lenet", "int8"), networks.images("lenet", 1), optimized=optimized)
    assert [node.op_type for node in onnx.load(optimized).graph.node] == [
        *("Transpose", "QLinearConv", "NhwcMaxPool", "QLinearConv", "NhwcMaxPool"),
        *("Reshape", "QGemm", "QGemm", "QLinearSoftmax"),
    ]


def test_pixels_go_in_as_they_are(quantized: Any) -> None:
    given, scores = border(quantized("lenet", "int8"))
    assert (given.name, given.shape, given.layout) == ("image", (1, 1, 28, 28), "NCHW")
    assert (given.dtype, given.scale, given.zero_point) == ("uint8", 1.0, 0)
    assert (scores.name, scores.shape, scores.dtype, scores.zero_point) == ("scores", (1, 10), "uint8", 0)
    assert scores.scale == pytest.approx(1 / 255)


def test_pixels_of_another_scale(float_file: Any, networks: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    quantize_onnx(
        float_file("residual", "onnx"),
        path,
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=networks.images("residual", 4),
        pixels=Pixels(scale=2 / 255, offset=-1.0),
    )
    given, _ = border(path)
    assert given.scale == pytest.approx(2 / 255, rel=1e-6)
    assert given.zero_point == 128


@pytest.mark.parametrize("scheme", IN_ONNX)
def test_the_file_is_valid_onnx(scheme: str, quantized: Any) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(quantized("inception", scheme)), full_check=True)


def test_same_input_gives_same_bytes_and_prints_nothing(
    quantized: Any,
    float_file: Any,
    networks: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = quantized("inception", "int8").read_bytes()
    capfd.readouterr()
    again = tmp_path / "again.onnx"
    with caplog.at_level(logging.DEBUG):
        quantize_onnx(
            float_file("inception", "onnx"),
            again,
            scheme=SCHEMES.get("int8").SCHEME,
            calibration=networks.images("inception", 32),
        )
    assert again.read_bytes() == first
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


# --- faults ---------------------------------------------------------------------------------------------------------


def _error(kind: type[Exception], float_path: Path, out: Path, **arguments: Any) -> str:
    scheme = SCHEMES.get(arguments.pop("scheme", "int8")).SCHEME
    with pytest.raises(kind) as caught:
        quantize_onnx(float_path, out, scheme=scheme, **arguments)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["int8-uint8", "int16x8"])
def test_a_scheme_that_onnx_has_not(scheme: str, float_file: Any, tmp_path: Path) -> None:
    message = _error(ExportError, float_file("lenet", "onnx"), tmp_path / "out.onnx", scheme=scheme)
    assert message.startswith(f"the scheme {scheme} does not exist for ONNX\n")


def test_no_calibration_images(float_file: Any, tmp_path: Path) -> None:
    message = _error(DataError, float_file("lenet", "onnx"), tmp_path / "out.onnx")
    assert message.startswith("the scheme int8 needs calibration images\n")


def test_a_quantized_model(quantized: Any, networks: Any, tmp_path: Path) -> None:
    path = quantized("lenet", "int8")
    message = _error(ModelError, path, tmp_path / "out.onnx", calibration=networks.images("lenet", 2))
    assert message.startswith(f"{path.name} is no float32 model\n  why: it holds ")


def test_an_operation_that_stays_float_is_named(tmp_path: Path) -> None:
    import keras
    import onnx

    from emb.export import onnx as export

    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(image))
    export.export(keras.Model(image, keras.layers.Dense(3)(x)), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    made = convolution.output[0]
    convolution.output[0] = "before"
    model.graph.node.insert(1, onnx.helper.make_node("LRN", ["before"], [made], name="norm", size=5))
    onnx.save(model, tmp_path / "lrn.onnx")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    message = _error(ExportError, tmp_path / "lrn.onnx", tmp_path / "out.onnx", calibration=images)
    assert message == (
        "the int8 ONNX model keeps float operations\n"
        "  why: LRN norm\n"
        "  fix: replace the layers behind these operations, or choose dynamic or float16"
    )
