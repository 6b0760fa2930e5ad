"""Builds beside each other, and a build beside an older one: what was measured, kept from their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from emb.spec.fit import Estimate
from emb.spec.report import DataSummary, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """A build's report. machine: what its times were measured on, "" in reports that do not say it.

    board_rows: (device, machine, row) of what was measured on boards since; accuracy is None where it is over fewer
    images than the build's own.
    target: that it was built for, "" for none.  estimates: file -> its latency on the target.
    """

    directory: str
    recipe: str
    data: DataSummary
    machine: str
    rows: tuple[Row, ...]
    board_rows: tuple[tuple[str, str, Row], ...] = ()
    target: str = ""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a build on one runtime. machine: what it was timed on, and on how many threads if more than one.

    device: the board's name; "" for what was measured where it was built.
    target: that its build is for, "" for none.  estimate: of its latency there, None where the target does not run the
    file or nothing is known.
    smallest, fastest: no other entry of the same test images is at least as accurate and smaller, or faster on the same
    machine: it lies on the frontier.
    """

    build: str
    machine: str
    device: str
    target: str
    estimate: Estimate | None
    row: Row
    smallest: bool
    fastest: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "build": self.build,
            "machine": self.machine,
            "device": self.device or None,
            "target": self.target or None,
            "estimated_us": self.estimate and asdict(self.estimate),
            **self.row.to_json(),
            "on_size_frontier": self.smallest,
            "on_latency_frontier": self.fastest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Builds that were judged by the same test images."""

    data: DataSummary
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data.name,
            "test_images": self.data.test_images,
            "digest": self.data.digest,
            "rows": [entry.to_json() for entry in self.entries],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a change may cost at most; None for no limit.

    accuracy_drop: in points.  size_growth: of the file, in percent.
    """

    accuracy_drop: float | None = None
    size_growth: float | None = None

    @property
    def are_stated(self) -> bool:
        return self.accuracy_drop is not None or self.size_growth is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file on one runtime, before and after; None where one of the builds lacks it."""

    old: Row | None
    new: Row | None

    @property
    def row(self) -> Row:
        """Either, for its names."""
        found = self.new or self.old
        assert found is not None
        return found

    @property
    def points(self) -> float | None:
        """What accuracy has gained."""
        if self.old is None or self.new is None or self.old.accuracy is None or self.new.accuracy is None:
            return None
        return 100 * (self.new.accuracy - self.old.accuracy)

    @property
    def growth(self) -> float | None:
        """Of the file, in percent."""
        return None if self.old is None or self.new is None else 100 * (self.new.bytes / self.old.bytes - 1)

    def faults(self, limits: Limits) -> list[str]:
        """Which limits it passes, in words."""
        name = f"{self.row.scheme} {self.row.format} on {self.row.runtime}"
        name += "" if self.row.mode == "default" else f" ({self.row.mode})"
        if self.old is not None and self.new is None:
            return [f"{name}: it is not there any more"]
        if self.old is None or self.new is None:
            return []
        found = []
        if limits.accuracy_drop is not None and self.old.accuracy is not None:
            if self.points is None:
                found.append(f"{name}: its accuracy is not measured any more ({self.new.source})")
            elif -self.points > limits.accuracy_drop + _ROUNDING:
                found.append(f"{name}: {-self.points:.2f} points less, {limits.accuracy_drop:g} are allowed")
        growth = self.growth
        if limits.size_growth is not None and growth is not None and growth > limits.size_growth + _ROUNDING:
            found.append(f"{name}: {growth:.2f} % larger, {limits.size_growth:g} % is allowed")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.row.file,
            "format": self.row.format,
            "scheme": self.row.scheme,
            "runtime": self.row.runtime,
            "mode": self.row.mode,
            "old": self.old and self.old.to_json(),
            "new": self.new and self.new.to_json(),
            "accuracy_points": self.points,
            "size_growth_percent": self.growth,
        }


# A difference of shares is not exact in binary.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressions:
    """A build against an older one. faults: the limits that are passed, in words; none if all hold."""

    old: BuildSummary
    new: BuildSummary
    changes: tuple[Change, ...]
    limits: Limits

    @property
    def faults(self) -> tuple[str, ...]:
        if not self.limits.are_stated:
            return ()
        return tuple(fault for change in self.changes for fault in change.faults(self.limits))

    @property
    def is_one_machine(self) -> bool:
        """Whether the times of both were taken on machines of the same description, one after the other."""
        return bool(self.old.machine) and self.old.machine == self.new.machine

    def to_json(self) -> Mapping[str, Any]:
        return {
            "old": self.old.directory,
            "new": self.new.directory,
            "changes": [change.to_json() for change in self.changes],
            "limits": {
                "accuracy_drop_points": self.limits.accuracy_drop,
                "size_growth_percent": self.limits.size_growth,
            },
            "faults": list(self.faults),
        }
