"""emb zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from emb.pipeline.zoo import Comparison, Entry, Value, Zoo

_ABSENT = "–"
_ROWS = {
    "input": "input size",
    "convolution.layers": "# of CONV layers",
    "convolution.depth": "depth in # of CONV layers",
    "convolution.kernels": "  filter sizes",
    "convolution.channels": "  # of channels",
    "convolution.filters": "  # of filters",
    "convolution.strides": "  stride",
    "convolution.weights": "  weights",
    "convolution.macs": "  MACs",
    "dense.layers": "# of FC layers",
    "dense.kernels": "  filter sizes",
    "dense.channels": "  # of channels",
    "dense.filters": "  # of filters",
    "dense.weights": "  weights",
    "dense.macs": "  MACs",
    "weights": "total weights",
    "macs": "total MACs",
}


def zoo(as_json: Json = False) -> None:
    """Compare the figures of every architecture with those published.

    Parameters and MACs of all networks, and the summary tables of the CNN literature, computed from the graphs.
    """
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Bars
    from emb.pipeline.zoo import document
    from emb.pipeline.zoo import zoo as figures

    with Bars() as bars:

        def tell(name: str) -> None:
            bars.stage_ends(name, cached=True, seconds=0.0)  # takes the line before away
            bars.stage_begins(f"graph of {name}")

        found = figures(tell=tell)
    if as_json:
        print_json(document(found))
        return
    console = stdout()
    for title, table in (
        ("All architectures", _architectures(found.entries)),
        ("Structure: computed, and below it published", _structure(found.structure)),
        ("Parameter memory and MACs: computed, and below it published", _memory(found.memory)),
        ("Layers: computed, and below it published", _layers(found.columns)),
    ):
        console.print(f"\n{title}\n", markup=False, highlight=False)
        console.print(table)
    for line in _notes(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _architectures(entries: tuple[Entry, ...]) -> Table:
    from emb.pipeline.zoo import parameter_bytes

    table = _table("architecture", "input", "trainable", "all", "MiB", "MACs", "published parameters", "MACs", left=2)
    for entry in entries:
        said = {comparison.figure: comparison for comparison in entry.comparisons}
        table.add_row(
            entry.architecture.name,
            "x".join(map(str, entry.architecture.input_shape)),
            f"{entry.summary.trainable:,}",
            f"{entry.summary.parameters:,}",
            f"{parameter_bytes(entry.summary) / 2**20:,.2f}",
            f"{entry.summary.macs:,}",
            _said(said.get("trainable")) if "trainable" in said else _said(said.get("parameters"), note=" of all"),
            _said(said.get("macs")),
        )
    return table


def _structure(rows: Mapping[str, tuple[Comparison, ...]]) -> Table:
    table = _table("architecture", "single path", "kernels of 3x3 at most", "depth", left=1)
    for label, cells in rows.items():
        table.add_row(label, *map(_cell, cells))
    return table


def _memory(rows: Mapping[str, tuple[Comparison, ...]]) -> Table:
    table = _table("architecture", "input size", "parameter memory, MiB", "MACs", left=1)
    for label, cells in rows.items():
        table.add_row(label, *map(_cell, cells))
    return table


def _layers(columns: Mapping[str, tuple[Comparison, ...]]) -> Table:
    table = _table("", *columns, left=1)
    cells = {label: {cell.figure: cell for cell in listed} for label, listed in columns.items()}
    for figure, title in _ROWS.items():
        table.add_row(title, *(_cell(listed[figure]) for listed in cells.values()))
    return table


def _table(*headers: str, left: int) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place < left else "right")
    return table


def _cell(comparison: Comparison) -> str:
    ranges = ("channels", "filters", "depth")
    between = "-" if comparison.figure.endswith(ranges) else "x" if comparison.figure == "input" else ","
    computed, said = (_short(value, between=between) for value in (comparison.computed, comparison.published))
    if comparison.published is None:
        return f"{computed}\n{_ABSENT}"
    return f"{computed}\n{said}{' =' if comparison.published == comparison.computed else _deviation(comparison)}"


def _said(comparison: Comparison | None, *, note: str = "") -> str:
    """A published number with its deviation: = where it is exact."""
    if comparison is None:
        return _ABSENT
    exact = comparison.published == comparison.computed
    return f"{comparison.published:,}{note}{' =' if exact else _deviation(comparison)}"


def _deviation(comparison: Comparison) -> str:
    mark = "" if comparison.agrees else "*"
    if comparison.deviation_percent is None:
        return mark
    return f" {comparison.deviation_percent:+.1f}%{mark}"


def _notes(found: Zoo) -> list[str]:
    from emb.pipeline.published import CONVENTION
    from emb.pipeline.zoo import EXPLANATIONS, TOLERANCE_PERCENT

    deviating = [comparison for _, comparison in found.comparisons() if not comparison.agrees]
    headings = sorted({comparison.explanation for comparison in deviating if comparison.explanation})
    return [
        "",
        f"MACs: {CONVENTION}.",
        "trainable: weights, biases, and the scale and shift of batch normalization; all: its moving means and "
        "variances as well. MiB: all of them as float32.",
        f"*: more than {TOLERANCE_PERCENT:g} % away, or other sizes. {EXPLANATIONS} says why: {', '.join(headings)}",
    ]


def _short(value: Value | None, *, between: str) -> str:
    """1,582,671,872 as 1.583G; sizes with `between` between them."""
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return between.join(map(str, value))
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"
