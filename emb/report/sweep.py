"""A sweep on the terminal: its configurations, what could not be built, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.report.columns import ABSENT, estimate_range
from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.sweep import Configuration, SweepReport

if TYPE_CHECKING:
    from rich.console import Group

_LEFT_ALIGNED = 6
_HEADERS = (
    "width",
    "prune",
    "target",
    "format",
    "scheme",
    "runtime",
    "accuracy %",
    "seeds' range",
    "bytes",
    "median µs",
    "estimated µs",
    "frontier",
)


def render(report: SweepReport) -> Group:
    """The frontier first, the most accurate of it at the top; then the others."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    ranked = sorted(
        report.configurations, key=lambda one: (not (one.smallest or one.fastest), -one.mean_accuracy, one.bytes)
    )
    shown = [column for column in range(len(_HEADERS)) if column not in _unused(report)]
    rows = [[_cells(one)[column] for column in shown] for one in ranked]
    table = Figures(
        headers=[_HEADERS[column] for column in shown],
        rows=rows,
        left_aligned=sum(column < _LEFT_ALIGNED for column in shown),
    )
    failed = [
        Text(f"no build of {name}: {' '.join(error.split())}", style="bold red")
        for name, error in report.failures.items()
    ]
    return Group(
        table, Text(), *(Text(line, style="dim") for line in _notes(report)), *failed, Text(report.page, style="bold")
    )


def _unused(report: SweepReport) -> set[int]:
    """Columns that say nothing: of what was not varied."""
    varied = [[getattr(one, field) for one in report.configurations] for field in ("width", "pruning", "target")]
    unused = {column for column, values in enumerate(varied) if set(values) <= {None}}
    if all(len(one.accuracies) == 1 for one in report.configurations):
        unused.add(_HEADERS.index("seeds' range"))
    if not any(one.estimate for one in report.configurations):
        unused.add(_HEADERS.index("estimated µs"))
    return unused


def _cells(one: Configuration) -> tuple[str, ...]:
    on = [name for name, is_on in (("size", one.smallest), ("time", one.fastest)) if is_on]
    return (
        ABSENT if one.width is None else f"{one.width:g}",
        one.pruning or ABSENT,
        one.target or ABSENT,
        one.format,
        one.scheme,
        one.runtime,
        f"{100 * one.mean_accuracy:.2f}",
        f"{100 * min(one.accuracies):.2f}–{100 * max(one.accuracies):.2f}",
        f"{one.bytes:,.0f}",
        ABSENT if one.median_us is None else f"{one.median_us:,.0f}",
        estimate_range(one.estimate),
        ", ".join(on),
    )


def _notes(report: SweepReport) -> list[str]:
    seeds = max((len(one.accuracies) for one in report.configurations), default=1)
    estimates = sorted({(one.target, one.estimate.source) for one in report.configurations if one.estimate})
    images = " and ".join(section.data.judges for section in report.sections)
    return [
        f"accuracy over {images}" + (f", the mean of {seeds} seeds" if seeds > 1 else ""),
        "frontier: nothing else is at least as accurate and smaller (size), or faster (time)"
        f"; times less than {LEAST_DIFFERENCE:.0%} apart count as equal",
        f"times of one image on one thread, taken one after the other when all was built, measured on {report.machine}",
        *(f"estimated, not measured: the latency on {target}; source: {source}" for target, source in estimates),
        f"{len(report.trials) - len(report.failures)} builds in {report.seconds:,.0f} s; "
        f"their distinct stages took {report.stage_seconds:,.0f} s",
    ]
