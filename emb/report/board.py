"""What was measured on a board, for the terminal and as Markdown. Knows no connection and measures nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emb.report.columns import ABSENT, cells
from emb.report.tables import markdown_table
from emb.report.text import Figures
from emb.spec.board import BoardRun, BoardState, SustainedPoint
from emb.spec.report import BoardReport

if TYPE_CHECKING:
    from rich.console import Group

_HEADERS = (
    "runtime",
    "threads",
    "accuracy %",
    "95 %",
    "median µs",
    "p90 µs",
    "p99 µs",
    "sustained µs",
    "peak MB",
)
_LEFT_ALIGNED = 1  # the runtime
# Positions of the columns that `emb.report.columns.cells` has as well.
_RUNTIME, _ACCURACY, _INTERVAL, _MEDIAN, _P90, _PEAK = 2, 5, 6, 9, 10, 11
_CURVE_POINTS = 6
_CURVE_HEADERS = ("second", "median µs", "samples", "slowest core MHz", "hottest °C")


def render(report: BoardReport) -> Group:
    """A table with a line for each number of threads, the sustained curves in short, and what to know beside them."""
    from rich.console import Group
    from rich.text import Text

    table = Figures(headers=_HEADERS, rows=list(_table(report)), left_aligned=_LEFT_ALIGNED)
    curves = [Text(f"{_threads(run)}, {_curve_in_short(run)}") for run in report.runs]
    told = [Text(line, style="dim") for line in _notes(report)]
    warned = [Text(f"note: {note}", style="yellow") for note in report.notes]
    return Group(table, Text(), *curves, Text(), *told, *warned)


def markdown(report: BoardReport) -> str:
    """A page: the table, the notes, and each sustained curve second by second."""
    lines = [f"# {report.model} on {report.device}", "", *markdown_table(_HEADERS, _table(report), left=_LEFT_ALIGNED)]
    lines += ["", *(f"- {note}" for note in _notes(report))]
    lines += [f"- **{note}**" for note in report.notes]
    for run in report.runs:
        points = [_point(point) for point in run.sustained]
        lines += ["", f"## Sustained, {_threads(run)}", "", *markdown_table(_CURVE_HEADERS, points, left=0)]
        lines += ["", f"Before: {_state(run.before)}", "", f"After: {_state(run.after)}"]
    return "\n".join(lines) + "\n"


def _table(report: BoardReport) -> Iterator[tuple[str, ...]]:
    for row, run in zip(report.rows, report.runs, strict=True):
        shown = cells(row)
        yield (
            shown[_RUNTIME],
            f"{run.threads}",
            shown[_ACCURACY],
            shown[_INTERVAL],
            shown[_MEDIAN],
            shown[_P90],
            f"{run.p99_us:,.0f}",
            f"{run.sustained_us:,.0f}",
            shown[_PEAK],
        )


def _notes(report: BoardReport) -> list[str]:
    run = report.runs[0]
    lines = [
        f"measured on {report.device}: {report.machine}, {run.runtime} {run.version}, Python {run.machine.python}",
        f"one image at a time without a pause, {run.seconds:g} s after the warm-up; sustained is the last third",
    ]
    kept = {run.kept_one_run_in for run in report.runs} - {1}
    if kept:
        lines.append(f"one run in {' or '.join(map(str, sorted(kept)))} was kept as a sample")
    lines += _energy(report)
    lines.append(f"accuracy: {report.images}")
    if report.identical is not None:
        lines.append(f"{report.identical:,} of {report.compared:,} outputs are the bits that this machine gives")
    return lines


def _energy(report: BoardReport) -> list[str]:
    found = [
        f"{_threads(run)}: {energy_uj:,.0f} µJ an image by the sensor {sensor}, idle power included"
        for run in report.runs
        for sensor, energy_uj in run.energy_uj.items()
    ]
    return found or ["energy: not measured: the board exposes no sensor of power"]


def _threads(run: BoardRun) -> str:
    return "one thread" if run.threads == 1 else f"{run.threads} threads"


def _curve_in_short(run: BoardRun) -> str:
    """A few points of the curve, the first and the last among them."""
    points = run.sustained
    step = max(1, (len(points) - 1) / (_CURVE_POINTS - 1)) if len(points) > 1 else 1
    chosen = sorted({round(index * step) for index in range(_CURVE_POINTS)} & set(range(len(points))))
    told = ", ".join(f"{points[index].median_us:,.0f} ({points[index].at_s:g} s)" for index in chosen)
    return f"median µs of the second that began at: {told}"


def _point(point: SustainedPoint) -> list[str]:
    clock = ABSENT if point.frequency_hz is None else f"{point.frequency_hz / 1e6:,.0f}"
    heat = ABSENT if point.temperature_c is None else f"{point.temperature_c:.1f}"
    return [f"{point.at_s:g}", f"{point.median_us:,.0f}", f"{point.samples:,}", clock, heat]


def _state(state: BoardState) -> str:
    """In words, what the board does not tell included."""
    clocks = [f"{hz / 1e6:,.0f}" for hz in state.frequency_hz or () if hz is not None]
    heat = [f"{zone} {degrees:.1f} °C" for zone, degrees in (state.temperature_c or {}).items()]
    flags = state.throttled
    parts = {
        "governor": state.governor,
        "clock": " ".join(clocks) + " MHz" if clocks else None,
        "temperature": ", ".join(heat) or None,
        "firmware's flags": None if flags is None else f"0x{flags.raw:x}",
        "load": None if state.load_average is None else f"{state.load_average:.2f}",
    }
    return "; ".join(f"{name} {value or 'unknown'}" for name, value in parts.items())
