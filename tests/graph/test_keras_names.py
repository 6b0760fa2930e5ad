"""Which Keras layers an exported file's operations are, for every architecture and for Keras's own names."""

from __future__ import annotations

from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from emb.graph import keras as keras_graph
from emb.graph.files import read
from emb.graph.keras_names import LayerNames, layer_names
from emb.graph.model import Graph, constants
from emb.graph.vocabulary import PRODUCTS
from emb.zoo import ZOO

# Those that take no image as small as the others do.
SHAPES = {
    **dict.fromkeys(("lenet", "mlp", "mnist-cnn", "mnist-deep"), (28, 28, 1)),
    **dict.fromkeys(("inception-v3", "inception-v4"), (75, 75, 3)),
}


def exported(model: Any, path: Path) -> tuple[Graph, Graph, tuple[LayerNames | None, ...]]:
    from emb.export import tflite

    tflite.export(model, path)
    graph, layers = read(path), keras_graph.read(model)
    return graph, layers, layer_names(graph, layers)


# Ten seconds each, and of no other kinds of layers than inception-v2.
LARGE = ("inception-v3", "inception-v4")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.family) if name in LARGE else name for name in ZOO.names()]
)
def test_every_layer_of_the_zoo_is_found(name: str, tmp_path: Path) -> None:
    build = ZOO.get(name).build
    narrow = {"width": 0.25} if "width" in signature(build).parameters else {}
    model = build(input_shape=SHAPES.get(name, (64, 64, 3)), classes=10, **narrow)
    graph, layers, named = exported(model, tmp_path / "model.tflite")
    fixed = constants(graph)
    nameless = [
        operation.name
        for operation, found in zip(graph.operations, named, strict=True)
        if found is None and not fixed.issuperset(operation.outputs)
    ]
    assert nameless == []
    told = {layer for found in named if found for layer in (found.name, *found.folded)}
    assert told == {operation.name.split("/")[0] for operation in layers.operations}
    # A layer with a kernel is one convolution or product; its operation bears its name and no other layer's.
    kernels = {operation.name.split("/")[0] for operation in layers.operations if operation.kind in PRODUCTS}
    products = Counter(
        found.name
        for operation, found in zip(graph.operations, named, strict=True)
        if operation.kind in PRODUCTS and found
    )
    assert kernels <= products.keys()
    assert {layer: products[layer] for layer in kernels} == dict.fromkeys(kernels, 1)


@pytest.mark.slow
def test_the_names_that_keras_gives_are_not_mixed_up(tmp_path: Path) -> None:
    """conv2d_1 is both the second scope of conv2d and a layer; the layer's own second scope is conv2d_1_1."""
    import keras
    from keras import layers

    keras.backend.clear_session()
    image = keras.Input((28, 28, 1))
    x = layers.Rescaling(1 / 255)(image)
    for _ in range(3):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(8, activation="relu")(layers.Dropout(0.5)(x))
    model = keras.Model(image, layers.Dense(10, activation="softmax")(x))
    graph, _, named = exported(model, tmp_path / "model.tflite")
    pairs = zip(graph.operations, named, strict=True)
    found = [(operation.kind, one.name, one.folded) for operation, one in pairs if one]
    assert found == [
        ("CONV_2D", "conv2d", ("rescaling", "batch_normalization", "activation")),
        ("MAX_POOL_2D", "max_pooling2d", ()),
        ("CONV_2D", "conv2d_1", ("batch_normalization_1", "activation_1")),
        ("MAX_POOL_2D", "max_pooling2d_1", ()),
        ("CONV_2D", "conv2d_2", ("batch_normalization_2", "activation_2")),
        ("MAX_POOL_2D", "max_pooling2d_2", ()),
        ("RESHAPE", "flatten", ("dropout",)),
        ("FULLY_CONNECTED", "dense", ()),
        ("FULLY_CONNECTED", "dense_1", ()),
        ("SOFTMAX", "dense_1", ()),
    ]


def test_a_model_inside_of_the_model(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inner = keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(4, 3, activation="tanh", name="eye")], name="backbone"
    )
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), inner, layers.Flatten(name="flat"), layers.Dense(3, name="scores")], name="whole"
    )
    graph, _, named = exported(model, tmp_path / "model.tflite")
    assert [(operation.kind, one and one.name) for operation, one in zip(graph.operations, named, strict=True)] == [
        ("CONV_2D", "eye"),
        ("TANH", "eye"),
        ("RESHAPE", "flat"),
        ("FULLY_CONNECTED", "scores"),
    ]


def test_another_models_layers_are_not_taken_for_its_own(tmp_path: Path) -> None:
    import keras
    from keras import layers

    def model(name: str) -> Any:
        return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, name=name)])

    graph, _, _ = exported(model("scores"), tmp_path / "model.tflite")
    named = layer_names(graph, keras_graph.read(model("other")))
    # All that is known of it is that it writes the output.
    assert named[-1] is not None
    assert named[-1].name == "other"
