"""What `emb bench` prints: a line for each file, runtime and number of threads, without columns that have no figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from emb.report.columns import ABSENT, absent_notes, percent, runtime_of, share_interval
from emb.spec.latency import LatencySummary
from emb.spec.report import BenchReport, Row

if TYPE_CHECKING:
    from rich.console import Group

_NAMES = ("format", "scheme", "runtime", "threads")
_NOISY = "*"
# From this median on, of the fastest row, times are shown in milliseconds.
_MILLISECONDS_FROM_US = 1000.0


def render(report: BenchReport) -> Group:
    """The table, what a reader must know beside it, and what failed."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    headers, rows = table(report.rows)
    figures = Figures(headers=headers, rows=rows, left_aligned=len(_NAMES))
    dim = [Text(line, style="dim") for line in told(report)]
    failed = [Text(f"error: {error}", style="bold red") for error in report.errors]
    return Group(figures, Text(), *dim, *failed, Text(report.model, style="bold"))


def table(rows: Iterable[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(headers, the texts of each line)."""
    listed = list(rows)
    medians_us = [row.latency.median_us for row in listed if row.latency]
    unit = "ms" if medians_us and min(medians_us) >= _MILLISECONDS_FROM_US else "µs"
    columns = [_figures(row, per=1000.0 if unit == "ms" else 1.0) for row in listed]
    heads = (
        *("top-1 %", "95 %", f"median {unit}", "95 %", "p90", "p99"),
        *("cold ms", "images/s", "peak MB", "µJ/image"),
    )
    kept = [place for place in range(len(heads)) if any(line[place] != ABSENT for line in columns)]
    lines = [
        (row.format, row.scheme, runtime_of(row), _threads(row.latency), *(line[place] for place in kept))
        for row, line in zip(listed, columns, strict=True)
    ]
    return (*_NAMES, *(heads[place] for place in kept)), lines


def _figures(row: Row, *, per: float) -> tuple[str, ...]:
    return (
        percent(row.accuracy),
        share_interval(row),
        *_times(row.latency, per=per),
        _three_digits(row.cold_start_us, per=1000.0),
        _three_digits(row.throughput.images_per_s if row.throughput else None),
        ABSENT if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}",
        _three_digits(row.energy_uj),
    )


def _times(latency: LatencySummary | None, *, per: float) -> tuple[str, ...]:
    """Median, interval, p90, p99. per: microseconds in the unit."""
    if latency is None:
        return (ABSENT,) * 4
    interval = ABSENT
    if latency.low_us is not None:
        interval = f"{_three_digits(latency.low_us, per=per)}–{_three_digits(latency.high_us, per=per)}"
    return (
        _three_digits(latency.median_us, per=per) + (_NOISY if latency.noise else ""),
        interval,
        _three_digits(latency.p90_us, per=per),
        _three_digits(latency.p99_us, per=per),
    )


def _three_digits(value: float | None, *, per: float = 1.0) -> str:
    """At least three of them, where the figure has so many: 9.12, 33.4, 1,234."""
    if value is None:
        return ABSENT
    shown = value / per
    return f"{shown:,.{2 if shown < 9.995 else 1 if shown < 99.95 else 0}f}"


def told(report: BenchReport) -> list[str]:
    """What stands below the table."""
    lines = [report.images]
    if any(row.latency for row in report.rows):
        lines += [f"one image at a time, measured on {report.machine}{_load(report)}", report.protocol]
    lines += [
        f"{_NOISY} noisy: {row.scheme} {row.format} on {runtime_of(row)}, {_threads(row.latency)}: "
        + "; ".join(row.latency.noise)
        for row in report.rows
        if row.latency and row.latency.noise
    ]
    return [line for line in (*lines, *report.notes, *absent_notes(report.rows)) if line]


def _load(report: BenchReport) -> str:
    if report.load_before is None or report.load_after is None:
        return ""
    return f"; load {report.load_before:.2f} before, {report.load_after:.2f} after, emb's own work included"


def _threads(latency: LatencySummary | None) -> str:
    return ABSENT if latency is None else f"{latency.threads} thread{'s' * (latency.threads > 1)}"
