"""What is written back is what was read, and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.graph import flatbuffer as fb

ZEROS = bytes(8 * 64)


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dense layers of 64 channels: 64 zero points of the weights of each, and of the bias."""
    import keras

    from emb.export import tflite
    from emb.quantize import SCHEMES, quantize_tflite

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, bias_initializer="normal") for _ in range(2)]
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), *layers])
    folder = tmp_path_factory.mktemp("flatbuffer")
    tflite.export(model, folder / "float.tflite")
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), dtype=np.uint8)
    scheme = SCHEMES.get("int8").SCHEME
    quantize_tflite(folder / "float.tflite", folder / "int8.tflite", scheme=scheme, calibration=images)
    return folder / "int8.tflite"


def test_equal_lists_are_written_once(int8_file: Path) -> None:
    content = int8_file.read_bytes()
    zero_points = [
        tensor.quantization.zeroPoint
        for tensor in fb.load(int8_file).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.zeroPoint is not None
    ]
    assert [len(one) for one in zero_points].count(64) > 1
    assert content.count(ZEROS) == 1


def test_what_was_read_is_written_again(int8_file: Path) -> None:
    content = int8_file.read_bytes()
    assert fb.pack(fb.unpack(content)) == content


def test_a_list_that_is_changed_alone_is_another(int8_file: Path) -> None:
    model = fb.load(int8_file)
    first, second = [one for one in model.subgraphs[0].tensors if _channels(one) == 64][:2]
    first.quantization.zeroPoint = np.arange(64)
    again = fb.unpack(fb.pack(model)).subgraphs[0].tensors
    names = {fb.tensor_name(one): one for one in again}
    np.testing.assert_array_equal(names[fb.tensor_name(first)].quantization.zeroPoint, np.arange(64))
    assert not names[fb.tensor_name(second)].quantization.zeroPoint.any()


def _channels(tensor: Any) -> int:
    code = tensor.quantization
    return 0 if code is None or code.zeroPoint is None else len(code.zeroPoint)
