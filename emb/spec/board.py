"""What run.py tells of a board, as values: the documents of `run.py info` and `run.py bench`. Statistics are derived.

What a board does not expose is None and never guessed. Knows no connection and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from emb.spec.measurement import median, percentile

# The last part of a measurement is what a board can keep up; its beginning is what it does while it is cold.
_SUSTAINED_SHARE = 1 / 3
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttling:
    """The flags of a Raspberry Pi's firmware, of now and since it was booted. raw: all of them.

    Source: Raspberry Pi documentation, vcgencmd, get_throttled.
    """

    raw: int
    under_voltage: bool
    frequency_capped: bool
    throttled: bool
    soft_temperature_limit: bool
    under_voltage_since_boot: bool
    frequency_capped_since_boot: bool
    throttled_since_boot: bool
    soft_temperature_limit_since_boot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardState:
    """One moment. governor: of the CPU's clock.  frequency_hz, highest_frequency_hz: of each core.

    temperature_c: zone -> degrees Celsius.  load_average: runnable tasks over the last minute.
    """

    governor: str | None
    frequency_hz: tuple[int | None, ...] | None
    highest_frequency_hz: tuple[int | None, ...] | None
    temperature_c: Mapping[str, float] | None
    throttled: Throttling | None
    load_average: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardMoment:
    """Clock, temperature and power during a measurement. at_ns: since its begin.  power_w: sensor -> watts."""

    at_ns: int
    frequency_hz: tuple[int | None, ...] | None
    temperature_c: Mapping[str, float] | None
    power_w: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardMachine:
    """board: its name from the device tree.  machine: as `uname -m` says.  cores: that run.py may use.

    numpy, runtimes: installed versions.
    """

    board: str | None
    processor: str | None
    machine: str
    system: str
    kernel: str
    cores: int
    memory_bytes: int | None
    python: str
    glibc: str | None
    numpy: str | None
    runtimes: Mapping[str, str | None]

    @property
    def title(self) -> str:
        """One line for a report."""
        name = self.board or self.processor or "a machine without a name"
        return f"{name} ({self.cores} cores, {self.system} {self.machine})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedPoint:
    """One second of a measurement. at_s: its begin.  samples: behind the median.

    frequency_hz: of the slowest core.  temperature_c: of the hottest zone.
    """

    at_s: float
    median_us: float
    samples: int
    frequency_hz: int | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRun:
    """Single inferences on a board, one after the other without a pause, after a warm-up.

    bundle: sha256 (hex) of its bundle.json.  sha256: of the model's file.
    threads: that the runtime was given.  threads_alive: of the whole process.
    seconds: that were measured.  kept_one_run_in: k if every k-th run was kept as a sample; all were run.
    peak_memory_bytes: highest resident set of the process when it was warm.
    start_ns, latency_ns: of each sample, since the begin of the measurement and of the inference alone.
    """

    bundle: str
    name: str
    target: str
    model: str
    sha256: str
    runtime: str
    version: str
    mode: str
    threads: int
    threads_alive: int | None
    seconds: float
    warm_up_runs: int
    kept_one_run_in: int
    peak_memory_bytes: int | None
    machine: BoardMachine
    before: BoardState
    after: BoardState
    course: tuple[BoardMoment, ...]
    start_ns: tuple[int, ...]
    latency_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.latency_ns or min(self.latency_ns) < 0:
            raise ValueError("latency_ns must hold at least one time, none of them negative")
        if len(self.start_ns) != len(self.latency_ns) or list(self.start_ns) != sorted(self.start_ns):
            raise ValueError("start_ns must rise, and hold one time for each sample")
        if self.start_ns[0] < 0:
            raise ValueError("start_ns must not be negative")
        for name in ("threads", "kept_one_run_in"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    @property
    def median_us(self) -> float:
        """Over the whole measurement."""
        return median(self.latency_ns) / 1000

    @property
    def p90_us(self) -> float:
        """At least 90 % of the samples took no longer."""
        return percentile(self.latency_ns, 90) / 1000

    @property
    def p99_us(self) -> float:
        """At least 99 % of the samples took no longer."""
        return percentile(self.latency_ns, 99) / 1000

    @property
    def energy_uj(self) -> dict[str, float]:
        """Sensor -> energy of one image: its mean power times the time from one image to the next.

        All that the sensor sees is in it, idle power too. Empty where the board has none, or where one run was kept.
        """
        gaps = len(self.start_ns) - 1
        seen = [moment.power_w for moment in self.course if moment.power_w]
        if not gaps or not seen:
            return {}
        image_us = (self.start_ns[-1] - self.start_ns[0]) / gaps / self.kept_one_run_in / 1000
        sensors = dict.fromkeys(sensor for powers in seen for sensor in powers)
        watts = {sensor: [powers[sensor] for powers in seen if sensor in powers] for sensor in sensors}
        return {sensor: sum(read) / len(read) * image_us for sensor, read in watts.items()}

    @property
    def first_us(self) -> float:
        """The median of the first second."""
        return self.sustained[0].median_us

    @property
    def sustained_us(self) -> float:
        """The median of the last third of the time: what the board keeps up when it has become warm."""
        border = self.start_ns[-1] * (1 - _SUSTAINED_SHARE)
        late = [took for start, took in zip(self.start_ns, self.latency_ns, strict=True) if start >= border]
        return median(late) / 1000

    @property
    def sustained(self) -> tuple[SustainedPoint, ...]:
        """The curve: a point for each second in which an inference began."""
        seconds: dict[int, list[int]] = {}
        for start, took in zip(self.start_ns, self.latency_ns, strict=True):
            seconds.setdefault(start // _NS, []).append(took)
        moments = {moment.at_ns // _NS: moment for moment in self.course}
        return tuple(
            SustainedPoint(
                at_s=float(second),
                median_us=median(times) / 1000,
                samples=len(times),
                frequency_hz=_slowest(moments.get(second)),
                temperature_c=_hottest(moments.get(second)),
            )
            for second, times in seconds.items()
        )

    def to_json(self) -> dict[str, Any]:
        """What a report keeps of it: the statistics, and the raw samples behind them."""
        return {
            "median_us": self.median_us,
            "p90_us": self.p90_us,
            "p99_us": self.p99_us,
            "sustained_us": self.sustained_us,
            "energy_uj": self.energy_uj,
            "curve": [asdict(point) for point in self.sustained],
            **asdict(self),
        }


def _slowest(moment: BoardMoment | None) -> int | None:
    known = [frequency for frequency in (moment and moment.frequency_hz) or () if frequency is not None]
    return min(known, default=None)


def _hottest(moment: BoardMoment | None) -> float | None:
    return max(((moment and moment.temperature_c) or {}).values(), default=None)
