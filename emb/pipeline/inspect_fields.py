"""How far each layer of a model sees: the rows of `emb inspect --receptive-field`. Draws and prints nothing."""

from __future__ import annotations

from dataclasses import dataclass

from emb.graph.model import Graph, Operation, constants
from emb.graph.receptive import Field, covered_share, image_grid, receptive_fields
from emb.graph.summary import CONVOLVING
from emb.graph.vocabulary import POOLINGS, REDUCTIONS

_LAYERS = CONVOLVING | POOLINGS | REDUCTIONS | {"FULLY_CONNECTED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """A layer and what one of its outputs depends on.

    share: of the image, that the field of a position in its middle covers, in [0, 1]; None if either is unknown.
    """

    operation: Operation
    output_shape: tuple[int, ...] | None
    field: Field | None
    share: float | None


def field_rows(graph: Graph) -> tuple[FieldRow, ...]:
    """A row for each convolution, pooling, reduction and dense layer, and for all else that changes the field."""
    image = image_grid(graph)
    fixed = constants(graph)
    known: dict[int, Field | None] = {}
    rows = []
    for operation, field in zip(graph.operations, receptive_fields(graph), strict=True):
        if fixed.issuperset(operation.outputs):
            continue
        before = [known[index] for index in operation.inputs if index in known]
        known.update(dict.fromkeys(operation.outputs, field))
        if operation.kind not in _LAYERS and (not before or field in before):
            continue
        share = None if field is None or image is None else covered_share(field, image)
        shape = graph.tensors[operation.outputs[0]].shape if operation.outputs else None
        rows.append(FieldRow(operation=operation, output_shape=shape, field=field, share=share))
    return tuple(rows)
