"""The convolution in groups, Keras's own in weights, outputs, gradients and files; and what splits it up."""

from __future__ import annotations

import numpy as np
import pytest

GROUPS = [(1, "same", 1), (2, "valid", 2), (3, "same", 1)]


def _pair(groups, padding, strides):
    import keras

    from emb.layers import GroupedConv2D

    models = []
    for layer in (keras.layers.Conv2D, GroupedConv2D):
        keras.utils.set_random_seed(0)
        x = keras.Input((9, 8, 6))
        y = layer(12, 3, groups=groups, padding=padding, strides=strides, activation="relu", name="convolution")(x)
        models.append(keras.Model(x, y))
    return models


@pytest.mark.parametrize(("groups", "padding", "strides"), GROUPS)
def test_same_weights_give_the_same_outputs(groups, padding, strides):
    theirs, ours = _pair(groups, padding, strides)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    x = np.random.default_rng(1).standard_normal((2, 9, 8, 6)).astype(np.float32)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-5)


def test_it_comes_back_from_a_file(tmp_path):
    import keras

    from emb.layers import GroupedConv2D

    _, ours = _pair(2, "same", 1)
    ours.save(tmp_path / "model.keras")
    layer = keras.models.load_model(tmp_path / "model.keras").get_layer("convolution")
    assert type(layer) is GroupedConv2D
    assert layer.groups == 2


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_it_is_exported_as_one_convolution(tmp_path, file_format):
    import keras
    from keras import layers

    from emb.export import onnx, tflite
    from emb.graph.files import read
    from emb.layers import GroupedConv2D

    x = keras.Input((8, 8, 4))
    y = GroupedConv2D(4, 3, groups=2, name="convolution")(x)
    y = layers.Dense(2, activation="softmax")(layers.Flatten()(y))
    path = tmp_path / f"model.{file_format}"
    {"tflite": tflite, "onnx": onnx}[file_format].export(keras.Model(x, y), path)
    operations = [operation.kind for operation in read(path).operations]
    assert operations.count("CONV_2D") == 1
    assert "CONCATENATION" not in operations


def test_channels_are_split_in_order_and_come_back_from_a_file(tmp_path):
    import keras

    from emb.layers import ChannelSplit

    x = keras.Input((2, 2, 6))
    model = keras.Model(x, ChannelSplit(3, name="thirds")(x))
    model.save(tmp_path / "model.keras")
    values = np.arange(24, dtype=np.float32).reshape(1, 2, 2, 6)
    parts = keras.models.load_model(tmp_path / "model.keras")(values)
    assert [np.asarray(part)[0, 0, 0].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_a_split_is_exported_as_one_operation(tmp_path, file_format):
    import keras
    from keras import layers

    from emb.export import onnx, tflite
    from emb.graph.files import read
    from emb.layers import ChannelSplit

    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, name="first")(x)
    branches = [layers.Conv2D(2, 3, activation="relu")(part) for part in ChannelSplit(2, name="halves")(y)]
    y = layers.Dense(2, activation="softmax")(layers.Flatten()(layers.Concatenate()(branches)))
    path = tmp_path / f"model.{file_format}"
    {"tflite": tflite, "onnx": onnx}[file_format].export(keras.Model(x, y), path)
    operations = [operation.kind for operation in read(path).operations]
    assert [operations.count(kind) for kind in ("SPLIT", "CONV_2D", "CONCATENATION")] == [1, 3, 1]
