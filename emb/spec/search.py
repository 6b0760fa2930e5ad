"""What a search asks for: metrics, constraints and objectives, and their texts. Knows no way to take a metric.

bytes<=50kB    accuracy >= 99 %    latency<2ms    macs<=1.5M
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emb.errors import SpecError

Direction = Literal["minimize", "maximize"]

# What stands behind a number -> what it is worth, of each kind of metric.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "bytes": {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20},
    "time": {"": 1, "us": 1, "µs": 1, "ms": 10**3, "s": 10**6},
    "percent": {"": 1, "%": 1},
    "count": {"": 1, "k": 10**3, "M": 10**6, "G": 10**9},
}
_SUFFIX = {"bytes": " bytes", "time": " µs", "percent": " %", "count": ""}
_DECIMALS = {"bytes": 0, "time": 1, "percent": 2, "count": 0}
Operator = Literal["<=", ">=", "<", ">"]
_OPERATORS: tuple[Operator, ...] = ("<=", ">=", "<", ">")
_FORM = "write it as METRIC<=NUMBER, with <=, >=, < or >: --constraint 'bytes<=50kB'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a trial's file. kind: of its unit.  meaning: for help and documents."""

    name: str
    kind: Literal["bytes", "time", "percent", "count"]
    meaning: str

    def told(self, value: float) -> str:
        """With its unit: 18,368 bytes, 98.73 %."""
        return f"{self.figure(value)}{_SUFFIX[self.kind]}" + (f" {self.name}" if self.kind == "count" else "")

    def figure(self, value: float) -> str:
        """Without it, for a column."""
        return f"{value:,.{_DECIMALS[self.kind]}f}"


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", kind="percent", meaning="of the file on the validation images"),
        Metric(name="bytes", kind="bytes", meaning="of the file"),
        Metric(name="gzip_bytes", kind="bytes", meaning="of the file, compressed"),
        Metric(name="latency", kind="time", meaning="of one image on one thread here, the median"),
        Metric(name="macs", kind="count", meaning="multiplications of one image"),
        Metric(name="parameters", kind="count", meaning="weights and biases of the file"),
    )
}


def metric_of(name: str, *, option: str) -> Metric:
    """The metric of that name. option: for the message of the SpecError that offers the nearest."""
    if name not in METRICS:
        raise SpecError(f"{option} names an unknown metric: {name!r}", fix=_nearest(name))
    return METRICS[name]


def _nearest(name: str) -> str:
    known = ", ".join(METRICS)
    close = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? known: {known}" if close else f"known: {known}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    metric: Metric
    direction: Direction

    def __str__(self) -> str:
        return f"{self.direction} {self.metric.name}"

    def loss(self, value: float) -> float:
        """The smaller the better."""
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """limit: in bytes, µs, percent, or a plain count.  text: as it was written."""

    metric: Metric
    operator: Operator
    limit: float
    text: str

    def __str__(self) -> str:
        return f"{self.metric.name}{self.operator}{self.limit:.15g}"

    def violation(self, value: float) -> float:
        """By how much a value misses the limit; 0 if it holds.

        Relative to the limit, so that a search can add up what several constraints miss. Of percents it is relative to
        what lacks 100: for accuracy>=99, 98 has twice the errors that are allowed, and misses by 1.
        """
        beyond = value - self.limit if self.operator.startswith("<") else self.limit - value
        if beyond < 0 or (beyond == 0 and self.operator.endswith("=")):
            return 0.0
        scale = 100 - self.limit if self.metric.kind == "percent" else self.limit
        return max(beyond / (abs(scale) or 1.0), 1e-9)


def constraint_of(text: str) -> Constraint:
    """What `--constraint` takes. Raises SpecError that shows the place where it cannot be read."""
    found = re.match(r"\s*(\w*)(\s*)", text)
    assert found  # both may be empty
    name, place = found[1], found.end()
    if not name:
        raise _unreadable(text, found.start(1), found.start(1) + 1, "here the name of a metric is missing")
    operator = next((one for one in _OPERATORS if text.startswith(one, place)), None)
    if operator is None:
        end = re.compile(r"[^\w\s.]*").match(text, place)
        raise _unreadable(text, place, end.end() if end else place, f"here one of {' '.join(_OPERATORS)} is missing")
    if name not in METRICS:
        raise SpecError(
            f"--constraint {text!r} names an unknown metric",
            why=_pointed(text, found.start(1), found.end(1), f"{name!r} is no metric"),
            fix=_nearest(name),
        )
    metric = METRICS[name]
    limit = _limit(text, place + len(operator), metric)
    return Constraint(metric=metric, operator=operator, limit=limit, text=text.strip())


def _limit(text: str, start: int, metric: Metric) -> float:
    """The number from `start` on, times its unit."""
    number = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*").match(text, start)
    if not number:
        place = start + len(text[start:]) - len(text[start:].lstrip())
        raise _unreadable(text, place, len(text.rstrip()), "here a number is missing")
    unit, units = text[number.end() :].rstrip(), _UNITS[metric.kind]
    # Nobody means a millibyte by mb.
    known = {one.lower(): worth for one, worth in units.items()} if metric.kind == "bytes" else units
    worth = known.get(unit.lower() if metric.kind == "bytes" else unit)
    if worth is None:
        offered = ", ".join(one for one in units if one)
        message = f"{unit!r} is no unit of {metric.name}; known: {offered}"
        raise _unreadable(text, number.end(), number.end() + len(unit), message)
    return float(number[1]) * worth


def _unreadable(text: str, start: int, end: int, message: str) -> SpecError:
    return SpecError(f"--constraint {text!r} cannot be read", why=_pointed(text, start, end, message), fix=_FORM)


def _pointed(text: str, start: int, end: int, message: str) -> str:
    """The text, and carets below the part from `start` to `end`; for the second line of an error, behind "  why: "."""
    return f"{text}\n       {' ' * start}{'^' * max(1, end - start)} {message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a search is for. objectives: at least one."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        names = [objective.metric.name for objective in self.objectives]
        if not names:
            raise ValueError("a search needs an objective")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is named twice as what to minimize or maximize")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that it names, each once."""
        named = [*(one.metric for one in self.objectives), *(one.metric for one in self.constraints)]
        return tuple(dict.fromkeys(named))

    @property
    def is_timed(self) -> bool:
        return any(metric.kind == "time" for metric in self.metrics)

    def __str__(self) -> str:
        return ", ".join([*map(str, self.objectives), *map(str, self.constraints)])

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Constraint -> by how much the metrics miss it."""
        return {str(one): one.violation(metrics[one.metric.name]) for one in self.constraints}

    def losses(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """One for each objective, the smaller the better."""
        return tuple(one.loss(metrics[one.metric.name]) for one in self.objectives)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTrial:
    """number: in the study.  values: field -> value.  metrics: empty if it failed.  error: why it did, or ""."""

    number: int
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    error: str = ""

    @property
    def name(self) -> str:
        """Of its directory, and on the terminal."""
        return f"trial-{self.number}"

    @property
    def settings(self) -> str:
        """Its values as --set would take them."""
        return "  ".join(f"{field}={value}" for field, value in self.values.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "values": dict(self.values),
            "metrics": dict(self.metrics),
            "error": self.error,
        }


def best_of(trials: Sequence[SearchTrial], question: Question) -> list[SearchTrial]:
    """Of those that keep all constraints, the ones that no other one dominates, by their first objective.

    Of several with the same metrics the earliest.
    """
    feasible = [one for one in trials if one.metrics and not any(question.violations(one.metrics).values())]
    first: dict[tuple[float, ...], SearchTrial] = {}
    for one in sorted(feasible, key=lambda one: one.number):
        first.setdefault(question.losses(one.metrics), one)
    return [first[own] for own in sorted(first) if not any(_dominates(other, own) for other in first)]


def nearest_of(trials: Sequence[SearchTrial], question: Question) -> SearchTrial | None:
    """The one that misses the constraints by the least, all added up."""
    missed = {one.number: sum(question.violations(one.metrics).values()) for one in trials if one.metrics}
    found = [one for one in trials if one.number in missed]
    return min(found, key=lambda one: (missed[one.number], one.number), default=None)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= its for mine, its in zip(one, other, strict=True))
