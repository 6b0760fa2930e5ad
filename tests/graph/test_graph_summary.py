"""One row of a table for a whole network: convolutions, dense layers, depth, what is trainable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.graph import files
from emb.graph import keras as keras_graph
from emb.graph.cost import cost
from emb.graph.kernels import first_kernels
from emb.graph.model import Graph
from emb.graph.summary import convolution_depth, first_convolution, moving_statistics, summarise


@pytest.fixture(scope="session")
def family() -> Graph:
    """Everything that the classic networks consist of, with a second output."""
    from keras import Input, Model, layers

    from emb.layers import L2Pooling2D, LocalResponseNormalization

    image = Input((31, 31, 3), name="image")
    x = layers.ZeroPadding2D(((1, 0), (1, 0)), name="pad")(layers.Rescaling(1 / 255, name="rescale")(image))
    x = layers.Conv2D(8, 5, strides=2, name="conv1")(x)  # 14x14
    x = LocalResponseNormalization(name="lrn")(x)
    x = L2Pooling2D(2, name="l2")(x)  # 7x7
    x = layers.Conv2D(12, 3, groups=2, padding="same", use_bias=False, name="grouped")(x)
    x = layers.BatchNormalization(name="bn")(x)
    left = layers.Conv2D(12, (1, 7), padding="same", name="left1")(x)
    left = layers.Conv2D(12, (7, 1), padding="same", name="left2")(left)
    x = layers.Add(name="add")([x, left])
    x = layers.Concatenate(name="concat")([x, layers.MaxPooling2D(3, 1, padding="same", name="pool")(x)])
    aside = layers.Dense(4, name="auxiliary")(layers.GlobalAveragePooling2D(name="mean")(x))
    x = layers.Dropout(0.5, name="drop")(layers.Flatten(name="flatten")(x))
    x = layers.Dense(16, activation="relu", name="dense")(x)
    return keras_graph.read(Model(image, [layers.Dense(4, name="scores")(x), aside], name="family"))


def test_every_part_of_the_family_is_counted(family: Graph) -> None:
    found = summarise(family)
    assert found.convolution.layers == 4
    assert found.convolution_depth == convolution_depth(family) == 4
    assert found.depth == 6
    assert not found.single_path
    assert found.convolution.kernels == ((1, 7), (3, 3), (5, 5), (7, 1))
    assert found.convolution.channels == (3, 4, 12)  # 4 of 8: two groups
    assert found.convolution.filters == (8, 12)
    assert found.convolution.strides == ((1, 1), (2, 2))
    kernels = 75 * 8 + 9 * 4 * 12 + 2 * 7 * 12 * 12
    assert found.convolution.weights == kernels
    assert found.convolution.macs == 75 * 8 * 14**2 + (9 * 4 * 12 + 2 * 7 * 12 * 12) * 7**2
    assert found.dense.layers == 3
    assert found.dense.kernels == ((1, 1), (7, 7))  # the flattened map, the mean, the vector
    assert found.dense.channels == (16, 24)
    assert found.dense.filters == (4, 16)
    assert found.dense.weights == found.dense.macs == 49 * 24 * 16 + 16 * 4 + 24 * 4
    biases = 8 + 12 + 12 + 16 + 4 + 4
    assert found.trainable == kernels + found.dense.weights + biases + 2 * 12
    assert found.parameters == found.trainable + 2 * 12
    assert moving_statistics(family) == 24


def test_nothing_in_the_family_is_unknown(family: Graph) -> None:
    total = cost(family)
    assert total.uncounted == ()
    fields = {family.operations[row.number].name: row.field for row in total.operations}
    assert None not in fields.values()
    pixels = {name: field.pixels for name, field in fields.items() if field}
    assert pixels["conv1"] == pixels["lrn"] == (5, 5)
    assert pixels["l2"] == (7, 7)
    assert pixels["grouped"] == (7 + 2 * 4, 7 + 2 * 4)
    assert pixels["left1"] == (15, 15 + 6 * 4)
    assert pixels["add"] == (15 + 6 * 4, 15 + 6 * 4)


def test_depth_is_the_longest_path() -> None:
    from keras import Input, Model, layers

    image = Input((8, 8, 1))
    x = long = layers.Conv2D(2, 1)(image)
    for _ in range(3):
        long = layers.Conv2D(2, 3, padding="same")(long)
    graph = keras_graph.read(Model(image, layers.Add()([layers.Conv2D(2, 1)(x), long])))
    assert (summarise(graph).convolution.layers, convolution_depth(graph)) == (5, 4)


@pytest.mark.parametrize("name", ["lenet-float32.tflite", "lenet-int8.tflite", "lenet-float32.onnx"])
def test_every_format_has_the_same_summary(models: Path, lenet: Any, name: str) -> None:
    path = models / name
    assert path.is_file(), sorted(models.iterdir())
    assert summarise(files.read(path)) == summarise(keras_graph.read(lenet))


@pytest.mark.parametrize(
    "name",
    ["lenet-float32.tflite", "lenet-float16.tflite", "lenet-int8.tflite", "lenet-float32.onnx", "lenet-int8-qdq.onnx"],
)
def test_kernels_are_read_from_every_format(models: Path, lenet: Any, name: str) -> None:
    wanted = lenet.get_layer("conv1").get_weights()[0]
    path = models / name
    _, kernels = first_kernels(path, files.read(path))
    assert kernels.shape == (5, 5, 1, 6)
    # A converter may move the scaling of the pixels into the kernels: they then are all smaller by one factor.
    factor = float(np.sum(kernels * wanted) / np.sum(wanted * wanted))
    np.testing.assert_allclose(kernels / factor, wanted, atol=np.abs(wanted).max() / 127)


def test_a_network_without_convolutions() -> None:
    from keras import Input, Sequential, layers

    graph = keras_graph.read(Sequential([Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)]))
    assert first_convolution(graph) is None
    assert convolution_depth(graph) == 0
    found = summarise(graph)
    assert (found.convolution.layers, found.convolution.kernels, found.dense.kernels) == (0, (), ((4, 4),))
