"""emb inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from emb.cli.options import DataDirectory, Json, TrustModel, complete_recipe

if TYPE_CHECKING:
    from fractions import Fraction

    from rich.table import Table

    from emb.graph.cost import OperationCost
    from emb.graph.model import Graph, Operation
    from emb.pipeline.inspect import Inspection

_UNKNOWN = "?"
_NAME_WIDTH = 26


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RECIPE",
            help="A .tflite, .onnx, .keras or .h5 file, or a recipe's name or .toml file.",
            autocompletion=complete_recipe,
        ),
    ],
    data_dir: DataDirectory = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Show what each operation of a model costs.

    Shapes, parameters, MACs, receptive field and bytes of activations, and the totals.
    """
    from emb.cli.output import print_json, stdout
    from emb.pipeline.inspect import document
    from emb.pipeline.inspect import inspect as inspect_model

    inspection = inspect_model(model, data_dir=data_dir, trust_model=trust_model)
    if as_json:
        print_json(document(inspection))
        return
    console = stdout()
    console.print(_table(inspection))
    for line in _totals(inspection):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(inspection: Inspection) -> Table:
    """One row an operation; what only restates weights (their DEQUANTIZE) is left out."""
    from rich.markup import escape
    from rich.table import Table

    from emb.graph.model import constants

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("operation", no_wrap=True, overflow="ellipsis")
    table.add_column("name", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    table.add_column("output", no_wrap=True)
    for header in ("parameters", "MACs", "field", "bytes", "live"):
        table.add_column(header, justify="right", no_wrap=True)
    graph = inspection.graph
    fixed = constants(graph)
    for operation, row in zip(graph.operations, inspection.cost.operations, strict=True):
        if not fixed.issuperset(operation.outputs):
            table.add_row(*map(escape, _cells(graph, operation, row)))
    return table


def _cells(graph: Graph, operation: Operation, row: OperationCost) -> tuple[str, ...]:
    output = graph.tensors[operation.outputs[0]] if operation.outputs else None
    field = _UNKNOWN if row.field is None else "x".join(map(_pixels, row.field.pixels))
    return (
        operation.kind,
        _short(operation.name),
        _shape(output.shape) if output is not None else "",
        _count(row.parameters) if row.parameters else "",
        _count(row.macs) if row.macs != 0 else "",
        field,
        _count(row.activation_bytes),
        _count(row.live_bytes),
    )


def _totals(inspection: Inspection) -> list[str]:
    graph, total = inspection.graph, inspection.cost
    inputs = ", ".join(f"{graph.tensors[i].dtype} {_shape(graph.tensors[i].shape)}" for i in graph.inputs)
    outputs = ", ".join(f"{graph.tensors[i].dtype} {_shape(graph.tensors[i].shape)}" for i in graph.outputs)
    size = "" if inspection.file_bytes is None else f", {inspection.file_bytes:,} bytes"
    lines = [
        "",
        f"{inspection.source}: {graph.format}, {graph.layout}{size}; {inputs} -> {outputs}",
        f"{total.parameters:,} parameters in {total.constant_bytes:,} bytes of constants, {total.macs:,} MACs",
        f"activations: {_count(total.peak_live_bytes)} bytes alive at once, a lower bound for the arena",
    ]
    if total.uncounted:
        lines.append(f"MACs unknown, and not in the sum: {', '.join(total.uncounted)}")
    return lines


def _short(name: str) -> str:
    """The end of a converter's first name, which tells layers apart: of a/b/c;d/e/f it is b/c."""
    last = "/".join(name.split(";")[0].split("/")[-2:])
    return last if len(last) <= _NAME_WIDTH else "…" + last[1 - _NAME_WIDTH :]


def _shape(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return _UNKNOWN
    return "x".join(_UNKNOWN if extent < 0 else str(extent) for extent in shape) or "scalar"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _pixels(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.1f}"
