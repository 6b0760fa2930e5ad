"""Each rule holds for the file that keeps it, and names operation and tensor of the file that breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emb.graph import files, rules
from emb.graph.model import Graph
from emb.graph.rules import Rule, Violation

ALWAYS = [
    rules.single_input_and_output,
    rules.batch_of_one,
    rules.static_shapes,
    rules.no_shape_arithmetic,
    rules.no_custom_operation,
]
INTEGER = [*ALWAYS, rules.no_float_tensor]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("lenet-float32.tflite", ALWAYS),
        ("lenet-float16.tflite", ALWAYS),
        ("lenet-int8.tflite", [*INTEGER, rules.one_number_format]),
        ("lenet-uint8.tflite", INTEGER),
        ("mixed-int8.tflite", [*INTEGER, rules.one_number_format]),
        ("lenet-float32.onnx", ALWAYS),
        ("lenet-int8-qdq.onnx", [*ALWAYS, rules.every_product_is_quantized]),
        ("lenet-int8-qoperator.onnx", [*ALWAYS, rules.every_product_is_quantized]),
    ],
)
def test_good_files_keep_the_rules(models: Path, name: str, kept: list[Rule]) -> None:
    assert rules.check(files.read(models / name), kept) == ()


def test_float_tensors_are_named(models: Path) -> None:
    graph = files.read(models / "lenet-float32.tflite")
    found = rules.no_float_tensor(graph)
    first = f"CONV_2D {graph.operations[0].name}"
    assert "conv1" in first
    assert found[0] == Violation(
        rule="no_float_tensor",
        message="An integer-only model must hold no float tensor",
        operation=first,
        tensor="pixels",
        detail="float32",
    )
    assert str(found[0]) == (
        f"An integer-only model must hold no float tensor: operation {first}, tensor pixels, float32"
    )


def test_every_unquantized_product_is_named(models: Path) -> None:
    found = rules.every_product_is_quantized(files.read(models / "lenet-float32.onnx"))
    assert len({violation.operation for violation in found}) == 5
    assert len(found) == 10  # data and weights of each
    assert all(violation.detail == "float32" for violation in found)


def test_open_shapes_and_shape_arithmetic_are_named(models: Path) -> None:
    graph = files.read(models / "lenet-open-batch.tflite")
    assert rules.static_shapes(graph)[0].detail == "shape [-1, 28, 28, 1]"
    assert [violation.operation.split()[0] for violation in rules.no_shape_arithmetic(graph)] == ["SHAPE", "PACK"]
    (entry, exit_) = rules.batch_of_one(graph)
    assert (entry.tensor, entry.detail) == (graph.tensors[graph.inputs[0]].name, "shape (-1, 28, 28, 1)")
    assert exit_.tensor == graph.tensors[graph.outputs[0]].name


def test_conversions_at_the_border_are_named(models: Path) -> None:
    found = rules.one_number_format(files.read(models / "lenet-uint8.tflite"))
    assert [violation.detail for violation in found] == ["uint8 to int8", "int8 to uint8"]


def test_several_outputs_are_refused(models: Path) -> None:
    graph = files.read(models / "lenet-int8.tflite")
    two = replace(graph, outputs=(*graph.outputs, graph.operations[0].outputs[0]))
    (found,) = rules.single_input_and_output(two)
    assert str(found) == "The model must have one input and one output: 1 inputs, 2 outputs"


def test_custom_operations_are_named(models: Path) -> None:
    graph = files.read(models / "lenet-int8.tflite")
    own = replace(graph.operations[-1], kind="MyOwn", custom=True, name="last")
    found = rules.no_custom_operation(replace(graph, operations=(*graph.operations[:-1], own)))
    assert [violation.operation for violation in found] == ["MyOwn last"]


RULES = [
    rules.no_float_tensor,
    rules.every_product_is_quantized,
    rules.static_shapes,
    rules.batch_of_one,
    rules.single_input_and_output,
    rules.no_shape_arithmetic,
    rules.one_number_format,
    rules.no_custom_operation,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_first_line_of_a_rule_is_a_sentence_for_the_user(rule: Rule) -> None:
    first = (rule.__doc__ or "").split("\n")[0]
    assert first[0].isupper()
    assert "must" in first
    assert not first.endswith(".")


def test_a_rule_accepts_an_empty_graph() -> None:
    empty = Graph(name="empty", format="tflite", layout="NHWC", tensors=(), operations=(), inputs=(), outputs=())
    assert [violation.rule for violation in rules.check(empty, RULES)] == ["single_input_and_output"]
