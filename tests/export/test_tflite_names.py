"""Names in a float .tflite: each layer once in what it writes, a number for constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emb.export import tflite
from emb.export._tflite_names import shorten_names
from emb.graph import flatbuffer as fb
from emb.graph.files import read


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="first")(x)
    x = keras.layers.ReLU(name="c0")(keras.layers.BatchNormalization(name="norm")(x))
    y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(keras.layers.Add(name="sum")([x, y]))
    path = tmp_path_factory.mktemp("names") / "model.tflite"
    tflite.export(keras.Model(image, keras.layers.Dense(5, name="scores")(x), name="net"), path)
    return path


def test_each_layer_is_named_once(residual: Path) -> None:
    graph = read(residual)
    written = [graph.tensors[operation.outputs[0]].name for operation in graph.operations]
    assert written[0].split(";")[0] == "c0_1/Relu"
    assert [name.split(";")[0] for name in written[1:-1]] == ["second_1/Relu", "sum_1/Add", "mean_1/Mean"]
    for name in written[:-1]:
        scopes = [part.rsplit("/", 1)[0] for part in name.split(";")]
        assert len(scopes) == len(set(scopes))
        assert "net_1" not in name


def test_constants_are_numbered(residual: Path) -> None:
    graph = read(residual)
    names = [tensor.name for tensor in graph.tensors if tensor.constant]
    assert names == [f"c{number}" for number in range(len(names))]
    assert len(names) >= 5


def test_border_keeps_its_names(residual: Path) -> None:
    given, scores = tflite.border(residual)
    assert given.name == "image"
    assert scores.name == "Identity"


def renamed(path: Path, names: dict[str, str]) -> Any:
    """The schema's model with some tensors called otherwise."""
    model = fb.load(path)
    for tensor in model.subgraphs[0].tensors:
        name = fb.tensor_name(tensor)
        tensor.name = names.get(name, name).encode()
    return model


def names_of(model: Any) -> list[str]:
    return [fb.tensor_name(tensor) for tensor in model.subgraphs[0].tensors]


def test_name_that_is_taken_is_not_given_twice(residual: Path) -> None:
    mean, total = (
        next(name for name in names_of(fb.load(residual)) if name.startswith(begin)) for begin in ("mean_1", "sum_1")
    )
    model = renamed(residual, {mean: "net/a/b;net/a/c", total: "net/a/b", "c3": "weights"})
    shorten_names(model, scope="net")
    assert {"a/b", "net/a/b;net/a/c"} <= set(names_of(model))
    assert len(set(names_of(model))) == len(names_of(model))

    model = renamed(residual, {mean: "c1"})
    shorten_names(model, scope="net")
    constants = [name for name in names_of(model) if name[0] == "c" and name[1:].isdecimal()]
    assert len(set(constants)) == len(constants)
    assert "c0" in constants


def test_operation_of_the_model_itself_keeps_its_scope(residual: Path) -> None:
    mean = next(name for name in names_of(fb.load(residual)) if name.startswith("mean_1"))
    model = renamed(residual, {mean: "net/second;net/mean_1/Mean;other/x"})
    shorten_names(model, scope="net")
    assert "net/second;mean_1/Mean;other/x" in names_of(model)
