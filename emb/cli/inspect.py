"""emb inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emb.cli.options import Classes, Data, DataDirectory, Json, TrustModel, complete_recipe

if TYPE_CHECKING:
    from fractions import Fraction

    from rich.table import Table

    from emb.graph.cost import OperationCost
    from emb.graph.model import Graph, Operation
    from emb.pipeline.inspect import Inspection
    from emb.pipeline.sensitivity import Sensitivity

_UNKNOWN = "?"
_NAME_WIDTH = 26
_RATES = "0.25,0.5,0.75"


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RECIPE",
            help="A .tflite, .onnx, .keras or .h5 file, or a recipe's name or .toml file.",
            autocompletion=complete_recipe,
        ),
    ],
    receptive_field: Annotated[
        bool, typer.Option("--receptive-field", help="Show how far each layer sees, and nothing else.")
    ] = False,
    filters: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the kernels of the first convolution of a trained model."),
    ] = None,
    feature_maps: Annotated[
        Path | None,
        typer.Option(metavar="IMAGE", help="Draw what each convolution of a trained model makes of an image."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where --feature-maps writes a PNG file for each convolution; else here."),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Show the validation accuracy without a share of each layer's channels."),
    ] = False,
    rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="The shares of the channels that --sensitivity leaves out.")
    ] = _RATES,
    quantization_error: Annotated[
        bool,
        typer.Option(
            "--quantization-error",
            help="Show where int8 loses accuracy, layer by layer, worst first. Takes a build, its recipe, or a model "
            "of your own with --data.",
        ),
    ] = False,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="Of --quantization-error: how many of the worst are left out of int8 in turn; else 8."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of --quantization-error: validation images to compare on; else 256."),
    ] = None,
    data: Data = None,
    classes: Classes = None,
    data_dir: DataDirectory = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Show what each operation costs, how far it sees, what pruning or int8 costs a model, or what it has learned.

    Shapes, parameters, MACs, receptive field and bytes of activations, and the totals.
    """
    from emb.cli import quantization_error as error
    from emb.cli.inspect_options import refuse_what_does_nothing
    from emb.cli.output import print_json, stdout
    from emb.pipeline.inspect import document
    from emb.pipeline.inspect import inspect as inspect_model

    refuse_what_does_nothing(
        views={
            "--filters": filters is not None,
            "--feature-maps": feature_maps is not None,
            "--receptive-field": receptive_field,
            "--sensitivity": sensitivity,
            "--quantization-error": quantization_error,
        },
        options={
            "--output": output is not None,
            "--classes": classes is not None,
            "--data": data is not None,
            "--rates": rates != _RATES,
            "--images": images is not None,
            "--layers": layers is not None,
        },
    )
    if quantization_error:
        error.show(
            model, data=data, data_dir=data_dir, images=images, layers=layers, trust_model=trust_model, as_json=as_json
        )
        return
    if sensitivity:
        _sensitivity(model, rates=rates, data=data, data_dir=data_dir, trust_model=trust_model, as_json=as_json)
        return
    if filters is not None or feature_maps is not None:
        _draw(model, filters=filters, image=feature_maps, output=output, trust_model=trust_model, as_json=as_json)
        return
    inspection = inspect_model(model, data_dir=data_dir, trust_model=trust_model, classes=classes)
    if as_json:
        print_json(document(inspection))
        return
    console = stdout()
    console.print(_fields(inspection) if receptive_field else _table(inspection))
    for line in _totals(inspection):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _sensitivity(
    model: str, *, rates: str, data: str | None, data_dir: Path | None, trust_model: bool, as_json: bool
) -> None:
    from emb.cli.output import print_json, stdout
    from emb.pipeline.sensitivity import rates_of
    from emb.pipeline.sensitivity import sensitivity as measure

    found = measure(model, rates=rates_of(rates), data=data, data_dir=data_dir, trust_model=trust_model)
    if as_json:
        print_json(found.to_json())
        return
    console = stdout()
    console.print(_accuracies(found))
    lines = [
        "",
        f"{found.source}: {100 * found.accuracy:.2f} % whole, over {found.images}",
        "each row with its own channels masked, those of the least absolute weights first; nothing was trained again",
        *(f"not pruned: {layer}, {reason}" for layer, reason in found.untouched.items()),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _accuracies(found: Sensitivity) -> Table:
    """One row for each group of tied channels, one column for each rate."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for header in ("layer", "channels"):
        table.add_column(header, no_wrap=True, justify="left" if header == "layer" else "right")
    rates = list(dict.fromkeys(row.rate for row in found.rows))
    for rate in rates:
        table.add_column(f"-{100 * rate:g} %", justify="right", no_wrap=True)
    for start in range(0, len(found.rows), len(rates)):
        rows = found.rows[start : start + len(rates)]
        more = f" +{len(rows[0].layers) - 1}" if len(rows[0].layers) > 1 else ""
        cells = (_short(rows[0].group) + more, str(rows[0].channels), *(f"{100 * row.accuracy:.1f}" for row in rows))
        table.add_row(*map(escape, cells))
    return table


def _draw(
    model: str, *, filters: Path | None, image: Path | None, output: Path | None, trust_model: bool, as_json: bool
) -> None:
    from emb.cli.output import print_json, stdout
    from emb.pipeline.inspect_pictures import draw_feature_maps, draw_filters

    pictures = [] if filters is None else [draw_filters(model, filters, trust_model=trust_model)]
    if image is not None:
        pictures += draw_feature_maps(model, image, output or Path(), trust_model=trust_model)
    if as_json:
        print_json({"pictures": [picture.to_json() for picture in pictures]})
        return
    for picture in pictures:
        shape = "x".join(map(str, picture.shape))
        line = f"{picture.file}: {picture.layer}, {shape}, {picture.least:.4g} to {picture.largest:.4g}"
        stdout().print(line, highlight=False, markup=False, soft_wrap=True)


def _fields(inspection: Inspection) -> Table:
    """One row for each layer that sees more than the one before it."""
    from rich.markup import escape
    from rich.table import Table

    from emb.pipeline.inspect_fields import field_rows

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for header in ("layer", "operation", "output"):
        table.add_column(header, no_wrap=True)
    for header in ("field", "jump", "of the image"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in field_rows(inspection.graph):
        pixels, jump = (_UNKNOWN, _UNKNOWN) if row.field is None else map(_extents, (row.field.pixels, row.field.jump))
        share = _UNKNOWN if row.share is None else f"{100 * row.share:.1f} %"
        cells = (_short(row.operation.name), row.operation.kind, _shape(row.output_shape), pixels, jump, share)
        table.add_row(*map(escape, cells))
    return table


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
    field = _UNKNOWN if row.field is None else _extents(row.field.pixels)
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
    if inspection.in_floats:
        names = ", ".join(_short(name) for name in inspection.in_floats)
        lines.append(f"in float32, between a DEQUANTIZE and a QUANTIZE: {names}")
    if inspection.stem:
        lines.append(f"beginning: {inspection.stem}")
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


def _extents(pair: tuple[Fraction, Fraction]) -> str:
    """Height x width."""
    return "x".join(map(_pixels, pair))


def _pixels(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.1f}"
