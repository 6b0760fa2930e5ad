"""What a chart of trade-offs can show on either axis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.overview import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """key: of the value.  better: which end is.  logarithmic: at first.

    within: values are compared within the same "machine" or "target" alone; "" where they are the same everywhere.
    equal_within: see `frontier`.
    """

    key: str
    title: str
    better: Literal["less", "more"]
    within: Literal["", "machine", "target"] = ""
    equal_within: float = 0.0
    logarithmic: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


ESTIMATED = "estimated_us"


def _time(key: str, title: str) -> Axis:
    return Axis(key=key, title=title, better="less", within="machine", equal_within=LEAST_DIFFERENCE, logarithmic=True)


X_AXES = (
    Axis(key="bytes", title="file size, bytes", better="less", logarithmic=True),
    Axis(key="gzip_bytes", title="size after gzip, bytes", better="less", logarithmic=True),
    _time("median_us", "latency, median µs"),
    _time("p90_us", "latency, 90th percentile µs"),
    Axis(
        key=ESTIMATED,
        title="latency on the target, at most, estimated µs",
        better="less",
        within="target",
        logarithmic=True,
    ),
    Axis(key="peak_memory_bytes", title="peak memory of the process, bytes", better="less", within="machine"),
    Axis(key="parameters", title="parameters", better="less", logarithmic=True),
    Axis(key="macs", title="multiply-accumulate operations", better="less", logarithmic=True),
)
Y_AXES = (
    Axis(key="accuracy", title="accuracy, % (top-1)", better="more"),
    Axis(key="top5", title="accuracy, % (top-5)", better="more"),
    Axis(key="agreement", title="same class as the float model, %", better="more"),
    Axis(key="expected_calibration_error", title="expected calibration error, points", better="less"),
)
_SHARES = {axis.key for axis in Y_AXES}


def value_of(entry: Entry, axis: Axis) -> float | None:
    """What it says, shares in percent; None if it was not measured, or for the estimate, not estimated."""
    row = entry.row
    if axis.key == ESTIMATED:
        return None if entry.estimate is None else round(entry.estimate.highest_us, 3)
    if axis.key in ("median_us", "p90_us"):
        return None if row.latency is None else round(float(getattr(row.latency, axis.key)), 3)
    value: float | None = getattr(row, axis.key)
    return round(100 * value, 4) if value is not None and axis.key in _SHARES else value
