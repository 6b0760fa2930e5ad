"""emb inspect --quantization-error: its options and its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from emb.pipeline.quantization_error import LayerLoss, QuantizationError

_NAME_WIDTH = 34


def show(
    model: str, *, data: str | None, data_dir: Path | None, images: int | None, layers: str | None,
    trust_model: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure and print. Raises EmbError for what cannot be measured."""
    from emb.cli.output import print_json, stdout
    from emb.pipeline.model_files import build_of
    from emb.pipeline.quantization_error import IMAGES, LAYERS, keep, quantization_error

    found = quantization_error(
        model,
        data=data,
        data_dir=data_dir,
        images=IMAGES if images is None else images,
        layers=LAYERS if layers is None else layer_count(layers),
        trust_model=trust_model,
    )
    build = build_of(model) if data is None else None
    kept = build and keep(found, build)
    if as_json:
        print_json(found.to_json())
        return
    console = stdout()
    console.print(_table(found))
    for line in _totals(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if kept:
        console.print(f"kept in {kept}, for emb report", highlight=False, markup=False, soft_wrap=True)


def layer_count(text: str) -> int | None:
    """What --layers says; None for all. Raises SpecError for anything but a number from 0 on, or all."""
    from emb.errors import SpecError

    if text == "all":
        return None
    if not text.isdecimal():
        raise SpecError(f"there are no {text!r} layers", fix="give a number from 0 on, or all")
    return int(text)


def _table(found: QuantizationError) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("layer", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    table.add_column("operations", overflow="fold")
    headers = ("own dB", "middle channel dB", "SQNR dB", "cosine", "clipped %", "spared %", "kept float %")
    for header in headers:
        table.add_column(header, justify="right")
    for row in found.layers:
        table.add_row(*map(escape, _cells(row)))
    return table


def _cells(row: LayerLoss) -> tuple[str, ...]:
    return (
        _short(row.layer),
        ", ".join(row.kinds),
        _decibels(row.own_sqnr_db),
        _decibels(row.channel_sqnr_db),
        _decibels(row.sqnr_db),
        f"{row.cosine:.5f}",
        f"{100 * row.clipped_share:.3f}",
        _percent(row.accuracy_spared),
        _percent(row.accuracy_kept_float),
    )


def _totals(found: QuantizationError) -> list[str]:
    return [
        "",
        f"accuracy over {found.images:,} validation images of {found.data}: float32 "
        f"{_percent(found.float_accuracy)} %, int8 {_percent(found.int8_accuracy)} %, int8 simulated "
        f"{_percent(found.simulated_accuracy)} %; one image is {100 / found.images:.2f} points",
        "own: what the layer adds by itself; SQNR, cosine and clipped: of its output when all is int8; worst first",
        "spared: the layer's weights and output are not rounded, simulated; kept float: it computes in float32 between "
        "int8 layers, as a board can run it",
    ]


def _short(name: str) -> str:
    """The end of a name that belongs to no Keras layer, which tells operations apart."""
    from emb.report.columns import short_operation

    last = short_operation(name)
    return last if len(last) <= _NAME_WIDTH else "…" + last[1 - _NAME_WIDTH :]


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
