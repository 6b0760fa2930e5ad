"""The columns of the one table that emb prints, and how each figure reads. Knows no terminal and no markup."""

from __future__ import annotations

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


def cells(row: Row, *, reference_accuracy: float) -> tuple[str, ...]:
    """One row as texts, in the order of HEADERS. reference_accuracy: what `change` is counted from, in [0, 1]."""
    runtime = row.runtime if row.mode == "default" else f"{row.runtime} ({row.mode})"
    fixed = (row.format, row.scheme, runtime, f"{row.bytes:,}", f"{row.gzip_bytes:,}")
    if row.accuracy is None or row.accuracy_low is None or row.accuracy_high is None or row.agreement is None:
        return (*fixed, *[ABSENT] * 4, *_speed(row))
    return (
        *fixed,
        f"{100 * row.accuracy:.2f}",
        f"{100 * row.accuracy_low:.2f}–{100 * row.accuracy_high:.2f}",
        f"{100 * row.agreement:.2f}",
        f"{100 * (row.accuracy - reference_accuracy):+.2f}",
        *_speed(row),
    )


def _speed(row: Row) -> tuple[str, str, str]:
    memory = ABSENT if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}"
    if row.latency is None:
        return ABSENT, ABSENT, memory
    return f"{row.latency.median_us:,.0f}", f"{row.latency.p90_us:,.0f}", memory


def notes(report: Report) -> list[str]:
    """What a reader must know beside the table: the reference, the data, rows that were not measured, errors."""
    lines = [
        f"float model: {100 * report.reference_accuracy:.2f} % over {report.data.test_images:,} test images "
        f"of {report.data.name}; change is in points against it",
        f"one image at a time, {_threads(report)}, measured on {report.machine}",
    ]
    seen = set()
    for row in report.rows:
        line = f"{row.scheme} {row.format} on {row.runtime}: {row.source}"
        if row.source != "measured" and line not in seen:
            seen.add(line)
            lines.append(line)
    return lines


def _threads(report: Report) -> str:
    counts = sorted({row.latency.threads for row in report.rows if row.latency})
    named = " and ".join(str(count) for count in counts) or "no"
    return f"{named} thread" if counts == [1] else f"{named} threads"
