"""Files of integers in which chosen operations compute in floats: .tflite and .onnx, each operation in turn."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import ExportError
from emb.graph.files import read
from emb.graph.model import Graph, Operation
from emb.graph.rules import check
from emb.graph.vocabulary import PRODUCTS, REPRESENTATIONS
from emb.pipeline.graphs import rules_for
from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite
from emb.spec.scheme import Scheme

# What they hold: plain; a concatenation; an addition; islands that are closed; batch and response normalization.
NAMES = ("lenet", "inception", "residual", "leaky", "pre_activation", "two_groups")
INT8 = SCHEMES.get("int8").SCHEME
# They have an integer form between integers alone.
FOLLOWING = ("LEAKY_RELU", "REDUCE_MAX")
CONVERTERS = {"tflite": quantize_tflite, "onnx": quantize_onnx}


def convert(path: Path, out: Path, images: Any, *, kept: Collection[str], scheme: Scheme = INT8) -> Graph:
    CONVERTERS[path.suffix[1:]](path, out, scheme=scheme, calibration=images, kept=kept)
    return read(out)


def writes(graph: Graph, operation: Operation) -> str:
    return graph.tensors[operation.outputs[0]].name


def inner(graph: Graph) -> list[str]:
    """The tensors that operations write but for the last one, which gives the output."""
    return [writes(graph, one) for one in graph.operations if one.outputs[0] not in graph.outputs]


def floats_of(graph: Graph, outputs: Collection[str]) -> set[str]:
    """Of the operations that write them, those that compute in floats, by their names."""
    return {
        one.name
        for one in graph.operations
        if one.kind not in REPRESENTATIONS
        and writes(graph, one) in outputs
        and graph.tensors[one.outputs[0]].is_float
        and not (graph.format == "onnx" and one.kind in PRODUCTS and not _has_float_weights(graph, one))
    }


def _has_float_weights(graph: Graph, operation: Operation) -> bool:
    weights = graph.tensors[operation.inputs[1]]
    return weights.constant and weights.is_float


@pytest.mark.slow
@pytest.mark.parametrize("file_format", CONVERTERS)
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_may_stay_float(
    name: str, file_format: str, float_file: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    path, images, out = float_file(name, file_format), networks.images(name, 8), tmp_path / f"kept.{file_format}"
    wanted = run(path, images)
    outputs = inner(read(path))
    for output in outputs:
        graph = convert(path, out, images, kept={output})
        assert all(not graph.tensors[index].is_float for index in (*graph.inputs, *graph.outputs))
        kept = {one.name for one in graph.operations if writes(graph, one) == output or one.kind in FOLLOWING}
        assert check(graph, rules_for(INT8, file_format=file_format, kept=kept)) == (), output
        assert np.abs(run(out, images) - wanted).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("file_format", CONVERTERS)
@pytest.mark.parametrize("name", NAMES)
def test_all_may_stay_float(
    name: str, file_format: str, float_file: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    path, images, out = float_file(name, file_format), networks.images(name, 8), tmp_path / f"kept.{file_format}"
    outputs = inner(read(path))
    graph = convert(path, out, images, kept=outputs)
    whole = read(path)
    assert len(floats_of(graph, outputs)) >= len([one for one in whole.operations if one.kind in PRODUCTS]) - 1
    # Nothing but the border's rounding is left.
    step = 1 / 256
    assert np.abs(run(out, images) - run(path, images)).max() < 4 * step


@pytest.mark.parametrize("scheme", ["int8", "int8-uint8", "int16x8", "int4w"])
def test_every_scheme_of_integers_leaves_a_layer_in_floats(
    scheme: str, float_file: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    path, images = float_file("lenet", "tflite"), networks.images("lenet", 8)
    convolution = next(one for one in read(path).operations if one.kind == "CONV_2D")
    chosen = SCHEMES.get(scheme).SCHEME
    graph = convert(path, tmp_path / "kept.tflite", images, kept={convolution.name}, scheme=chosen)
    assert floats_of(graph, {one.name for one in graph.operations}) == {convolution.name}
    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {chosen.io}
    assert np.abs(run(tmp_path / "kept.tflite", images) - run(path, images)).max() < 0.1


@pytest.mark.parametrize("file_format", CONVERTERS)
def test_what_gives_the_output_stays_integers(file_format: str, float_file: Any, networks: Any, tmp_path: Path) -> None:
    path, images = float_file("lenet", file_format), networks.images("lenet", 8)
    last = writes(read(path), read(path).operations[-1])
    convert(path, tmp_path / f"plain.{file_format}", images, kept=())
    convert(path, tmp_path / f"kept.{file_format}", images, kept={last})
    assert (tmp_path / f"kept.{file_format}").read_bytes() == (tmp_path / f"plain.{file_format}").read_bytes()


def test_floats_of_layers_that_were_not_named_are_violations(float_file: Any, networks: Any, tmp_path: Path) -> None:
    path, images = float_file("lenet", "tflite"), networks.images("lenet", 8)
    first, second = [one.name for one in read(path).operations if one.kind == "CONV_2D"]
    graph = convert(path, tmp_path / "kept.tflite", images, kept={first, second})
    assert check(graph, rules_for(INT8, file_format="tflite", kept={first, second})) == ()
    violations = check(graph, rules_for(INT8, file_format="tflite", kept={first}))
    assert {violation.rule for violation in violations} == {"no_float_tensor", "one_number_format"}
    assert any(violation.operation == f"CONV_2D {second}" for violation in violations)
    assert not any(violation.operation == f"CONV_2D {first}" for violation in violations)


def test_a_product_in_floats_that_was_not_named_is_a_violation(float_file: Any, networks: Any, tmp_path: Path) -> None:
    path, images = float_file("lenet", "onnx"), networks.images("lenet", 8)
    first, second = [one.name for one in read(path).operations if one.kind == "CONV_2D"]
    graph = convert(path, tmp_path / "kept.onnx", images, kept={first, second})
    assert check(graph, rules_for(INT8, file_format="onnx", kept={first, second})) == ()
    (data, *_) = violations = check(graph, rules_for(INT8, file_format="onnx", kept={first}))
    assert {violation.operation for violation in violations} == {f"Conv {second}"}
    assert data.rule == "every_product_is_quantized"


def test_what_has_no_integer_kernel_is_still_refused_beside_a_float_layer(tmp_path: Path) -> None:
    import keras

    image = keras.Input((8, 8, 3), batch_size=1, name="image")
    x = keras.layers.Conv2D(4, 3, name="first")(image)
    x = keras.layers.Lambda(lambda one: keras.ops.sin(one), name="wave", output_shape=(6, 6, 4))(x)
    x = keras.layers.Conv2D(4, 3, name="second")(x)
    x = keras.layers.Dense(3, name="scores")(keras.layers.Flatten()(x))
    from emb.export import tflite

    path = tmp_path / "float.tflite"
    tflite.export(keras.Model(image, x), path)
    names = {one.kind: one.name for one in read(path).operations}
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    with pytest.raises(ExportError, match="SIN writes"):
        convert(path, tmp_path / "kept.tflite", images, kept={names["CONV_2D"]})
    graph = convert(path, tmp_path / "kept.tflite", images, kept={names["SIN"]})
    assert floats_of(graph, set(names.values())) == {names["SIN"]}
