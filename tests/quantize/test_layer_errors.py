"""int8 against float, layer by layer, and models in which single layers are left out of int8."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import DataError, ModelError
from emb.graph import flatbuffer
from emb.graph.files import read
from emb.quantize import SCHEMES, keep_float, layer_errors, quantize_tflite, simulate_except

# What they hold: plain; a concatenation; an addition; islands that are closed; a batch normalization that stays.
NAMES = ("lenet", "inception", "residual", "leaky", "pre_activation", "two_groups")


@pytest.fixture(scope="module")
def int8_file(float_file: Any, networks: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("int8")

    def write(name: str) -> Path:
        path = folder / f"{name}.tflite"
        if not path.exists():
            scheme = SCHEMES.get("int8").SCHEME
            quantize_tflite(float_file(name, "tflite"), path, scheme=scheme, calibration=networks.images(name, 16))
        return path

    return write


def operations_of(path: Path) -> list[str]:
    return [operation.name for operation in read(path).operations]


def kernels_of(path: Path) -> list[Any]:
    """The weights of convolutions and dense layers, output channels first."""
    model = flatbuffer.load(path)
    found = []
    for operator in model.subgraphs[0].operators:
        if flatbuffer.operation_name(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            tensor = model.subgraphs[0].tensors[operator.inputs[1]]
            found.append(flatbuffer.constant(model, tensor, np.float32).reshape(tensor.shape[0], -1))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_is_compared(name: str, float_file: Any, int8_file: Any, networks: Any) -> None:
    path = float_file(name, "tflite")
    layers = operations_of(path)
    errors = layer_errors(path, int8_file(name), networks.images(name, 4), layers=layers)
    assert [error.layer for error in errors] == layers
    for error in errors:
        assert error.accumulated.cosine > 0.98
        # What was calibrated on the same images is not clipped, but by the rounding of the zero point.
        assert error.accumulated.clipped <= 1
        assert error.own.sqnr_db > 15
        if error.kinds[0] in ("MAX_POOL_2D", "RESHAPE"):
            assert error.own.sqnr_db == math.inf
    # The first layer reads the image as it is: all its error is its own.
    assert errors[0].accumulated.sqnr_db == pytest.approx(errors[0].own.sqnr_db, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_simulation_rounds_as_int8_does(
    name: str, float_file: Any, int8_file: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    path, images = float_file(name, "tflite"), networks.images(name, 8)
    count = len(operations_of(path))
    simulate_except(path, int8_file(name), tmp_path / "all.tflite", kept=[True] * count)
    simulate_except(path, int8_file(name), tmp_path / "none.tflite", kept=[False] * count)
    exact, rounded = run(path, images), run(int8_file(name), images)
    np.testing.assert_array_equal(run(tmp_path / "all.tflite", images), exact)
    simulated = run(tmp_path / "none.tflite", images)
    assert np.abs(simulated - rounded).max() <= 3 / 256
    assert np.abs(simulated - exact).max() > 0


def test_the_simulation_rounds_weights_of_4_bits(float_file: Any, networks: Any, tmp_path: Path) -> None:
    path = float_file("lenet", "tflite")
    scheme = SCHEMES.get("int4w").SCHEME
    quantize_tflite(path, tmp_path / "int4w.tflite", scheme=scheme, calibration=networks.images("lenet", 16))
    count = len(operations_of(path))
    simulate_except(path, tmp_path / "int4w.tflite", tmp_path / "simulated.tflite", kept=[False] * count)
    compared = 0
    for before, after in zip(kernels_of(path), kernels_of(tmp_path / "simulated.tflite"), strict=True):
        for channel, rounded in zip(before, after, strict=True):
            values = np.unique(rounded)
            step = np.diff(values).min()
            assert len(values) <= 16
            assert np.abs(rounded - channel).max() <= step * 0.51
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", NAMES)
def test_one_operation_stays_float(
    name: str, float_file: Any, int8_file: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    path, images = float_file(name, "tflite"), networks.images(name, 4)
    names, out = operations_of(path), tmp_path / "kept.tflite"
    wanted = run(path, images)
    for place, own in enumerate(names):
        keep_float(path, int8_file(name), out, kept=[place == other for other in range(len(names))])
        graph = read(out)
        kinds = {operation.kind for operation in graph.operations}
        assert "DEQUANTIZE" in kinds, own
        floats = [
            operation
            for operation in graph.operations
            if operation.kind not in ("QUANTIZE", "DEQUANTIZE") and graph.tensors[operation.outputs[0]].is_float
        ]
        # TFLite's name for what an operation writes may be the output's own; a LEAKY_RELU beside a float stays float.
        assert own in [operation.name for operation in floats] or place == len(names) - 1
        assert len(floats) == 1 or name == "leaky"
        assert np.abs(run(out, images) - wanted).max() < 0.1


def test_operations_of_one_layer_are_one_row(float_file: Any, int8_file: Any, networks: Any) -> None:
    path = float_file("two_groups", "tflite")
    names = operations_of(path)
    layers = ["lrn" if "local_response" in name else name for name in names]
    assert layers.count("lrn") > 3
    errors = layer_errors(path, int8_file("two_groups"), networks.images("two_groups", 2), layers=layers)
    (lrn,) = [error for error in errors if error.layer == "lrn"]
    assert lrn.kinds[0] == "MUL"
    assert 10 < lrn.own.sqnr_db < 60
    left_out = layer_errors(
        path, int8_file("two_groups"), networks.images("two_groups", 2), layers=["" for _ in names[:-1]] + ["last"]
    )
    assert [error.layer for error in left_out] == ["last"]


def test_what_cannot_be_compared(float_file: Any, int8_file: Any, networks: Any) -> None:
    path = float_file("lenet", "tflite")
    layers = operations_of(path)
    with pytest.raises(ModelError) as refused:
        layer_errors(path, path, networks.images("lenet", 1), layers=layers)
    assert str(refused.value) == (
        "lenet.tflite is not the int8 form of the float model\n"
        "  why: it holds no int8 tensor image\n"
        "  fix: give the directory of a build, which holds both, or build the model again"
    )
    with pytest.raises(DataError) as refused_images:
        layer_errors(path, int8_file("lenet"), networks.images("residual", 1), layers=layers)
    assert str(refused_images.value) == (
        "the images are 16x16x3, the model takes 28x28x1\n  fix: give images of the model's height, width and channels"
    )
    with pytest.raises(DataError, match="there are no images to compare the models on"):
        layer_errors(path, int8_file("lenet"), networks.images("lenet", 1)[:0], layers=layers)
