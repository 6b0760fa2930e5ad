"""The border of a model file of any format, and the rules that an exported file must keep."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Literal

from emb.graph import rules
from emb.graph.model import Graph, Operation, constants
from emb.graph.vocabulary import REPRESENTATIONS
from emb.spec.contract import TensorContract
from emb.spec.scheme import Scheme


def border(path: Path) -> tuple[TensorContract, TensorContract]:
    """The input and the output of a .tflite or .onnx file, as they stand in the file."""
    if path.suffix.lower() == ".onnx":
        from emb.export import onnx

        return onnx.border(path)
    from emb.export import tflite

    return tflite.border(path)


def scores_of(graph: Graph) -> Literal["probabilities", "logits"]:
    """What a classifier's scores are, by the last operation that computes."""
    kinds = [operation.kind for operation in graph.operations if operation.kind not in REPRESENTATIONS]
    return "probabilities" if kinds and kinds[-1] in ("SOFTMAX", "LOGISTIC") else "logits"


def floats_among_integers(graph: Graph) -> tuple[Operation, ...]:
    """The operations of a .tflite that compute in float32 although the model takes and returns integers.

    None of an .onnx, where floats between DequantizeLinear and QuantizeLinear are how integers are written down.
    """
    if graph.format != "tflite" or any(graph.tensors[index].is_float for index in (*graph.inputs, *graph.outputs)):
        return ()
    fixed = constants(graph)
    return tuple(
        operation
        for operation in graph.operations
        if operation.kind not in REPRESENTATIONS
        and graph.tensors[operation.outputs[0]].is_float
        and operation.outputs[0] not in fixed
    )


def rules_for(scheme: Scheme, *, file_format: str, kept: Collection[str] = ()) -> tuple[rules.Rule, ...]:
    """What emb promises of every file it exports in `scheme`.

    kept: names of the file's operations that compute in floats on purpose.
    """
    always = (rules.single_input_and_output, rules.batch_of_one, rules.static_shapes, rules.no_custom_operation)
    if not scheme.integer_only:
        return always
    if file_format == "onnx":
        return (*always, partial(rules.every_product_is_quantized, kept=kept))
    converts = scheme.io != scheme.activations  # then the border's conversions are what was asked for
    one_format = () if converts else (partial(rules.one_number_format, kept=kept),)
    return (*always, partial(rules.no_float_tensor, kept=kept), *one_format)
