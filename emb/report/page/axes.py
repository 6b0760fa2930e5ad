"""What a chart of trade-offs can show on either axis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from emb.spec.report import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """key: of the value.  better: which end is.  is_time: whether it depends on the machine.  logarithmic: at first."""

    key: str
    title: str
    better: Literal["less", "more"]
    is_time: bool = False
    logarithmic: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


X_AXES = (
    Axis(key="bytes", title="file size, bytes", better="less", logarithmic=True),
    Axis(key="gzip_bytes", title="size after gzip, bytes", better="less", logarithmic=True),
    Axis(key="median_us", title="latency, median µs", better="less", is_time=True, logarithmic=True),
    Axis(key="p90_us", title="latency, 90th percentile µs", better="less", is_time=True, logarithmic=True),
    Axis(key="peak_memory_bytes", title="peak memory of the process, bytes", better="less", is_time=True),
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


def value_of(row: Row, axis: Axis) -> float | None:
    """What the row says, shares in percent; None if it was not measured."""
    if axis.key in ("median_us", "p90_us"):
        return None if row.latency is None else round(float(getattr(row.latency, axis.key)), 3)
    value: float | None = getattr(row, axis.key)
    return round(100 * value, 4) if value is not None and axis.key in _SHARES else value
