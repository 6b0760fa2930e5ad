"""The columns of the one table that emb prints, and how each figure reads. Knows no terminal and no markup."""

from __future__ import annotations

from collections.abc import Iterable

from emb.spec.fit import Estimate
from emb.spec.report import Report, Row

HEADERS = (
    "format",
    "scheme",
    "runtime",
    "bytes",
    "gzip",
    "accuracy %",
    "95 %",
    "agree %",
    "change",
    "median µs",
    "p90 µs",
    "peak MB",
)
LEFT_ALIGNED = 3  # columns; the figures after them are aligned to the right

ABSENT = "–"


def cells(row: Row, *, reference_accuracy: float | None = None) -> tuple[str, ...]:
    """One row as texts, in the order of HEADERS. reference_accuracy: what `change` is counted from, in [0, 1]."""
    change = ABSENT
    if row.accuracy is not None and reference_accuracy is not None:
        change = f"{100 * (row.accuracy - reference_accuracy):+.2f}"
    return (
        row.format,
        row.scheme,
        runtime_of(row),
        f"{row.bytes:,}",
        f"{row.gzip_bytes:,}",
        percent(row.accuracy),
        share_interval(row),
        percent(row.agreement),
        change,
        *_speed(row),
    )


def short_operation(name: str) -> str:
    """The end of a name that a converter gave to an operation, which tells it from the others."""
    return "/".join(name.split(";")[0].split("/")[-2:])


def runtime_of(row: Row) -> str:
    """The runtime, in brackets the mode if it is not the default."""
    return row.runtime if row.mode == "default" else f"{row.runtime} ({row.mode})"


def percent(share: float | None) -> str:
    """A share in [0, 1] with two decimals."""
    return ABSENT if share is None else f"{100 * share:.2f}"


def share_interval(row: Row) -> str:
    """The interval of the accuracy, in percent."""
    if row.accuracy_low is None or row.accuracy_high is None:
        return ABSENT
    return f"{100 * row.accuracy_low:.2f}–{100 * row.accuracy_high:.2f}"


def microseconds(value: float | None) -> str:
    """With one decimal below 100."""
    if value is None:
        return ABSENT
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def estimate_range(estimate: Estimate | None) -> str:
    """The least and the most of a latency that nobody measured, in microseconds."""
    if estimate is None:
        return ABSENT
    lowest, highest = microseconds(estimate.lowest_us), microseconds(estimate.highest_us)
    return lowest if lowest == highest else f"{lowest}–{highest}"


def _speed(row: Row) -> tuple[str, str, str]:
    memory = ABSENT if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}"
    if row.latency is None:
        return ABSENT, ABSENT, memory
    return f"{row.latency.median_us:,.0f}", f"{row.latency.p90_us:,.0f}", memory


def notes(report: Report) -> list[str]:
    """What a reader must know beside the table of a build."""
    data = report.data
    return [
        f"float model: {100 * report.reference_accuracy:.2f} % over {data.test_images:,} test images of {data.name}; "
        "change is in points against it",
        *(
            f"{formats.scheme}: .tflite and .onnx give the same class on {100 * formats.share:.2f} % of the test images"
            for formats in report.formats
        ),
        *report.notes,
        *measuring_notes(report.rows, machine=report.machine),
    ]


def measuring_notes(rows: Iterable[Row], *, machine: str) -> list[str]:
    """How the times were taken, and why some rows were not measured."""
    listed = list(rows)
    threads = sorted({row.latency.threads for row in listed if row.latency})
    lines = []
    if threads:
        count = "one thread" if threads == [1] else f"{threads[0]} threads"
        lines.append(f"one image at a time, {count}, measured on {machine}")
    return lines + absent_notes(listed)


def absent_notes(rows: Iterable[Row]) -> list[str]:
    """Why some rows were not measured."""
    absent = (f"{row.scheme} {row.format} on {row.runtime}: {row.source}" for row in rows if not row.was_measured)
    return list(dict.fromkeys(absent))
