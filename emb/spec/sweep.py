"""A grid of builds of one recipe, and what came of it. Knows no way to run them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from emb.spec.fit import Estimate
from emb.spec.overview import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One build. width, pruning, target: None where the recipe's own is meant.  seed: counted from the recipe's own."""

    width: float | None
    pruning: str | None
    target: str | None
    seed: int

    @property
    def name(self) -> str:
        """Of its directory: what sets it apart, as in width-0.5_channels-0.3_seed-1."""
        parts = [
            *([f"width-{self.width:g}"] if self.width is not None else []),
            *([re.sub(r"[^\w.]+", "-", self.pruning)] if self.pruning is not None else []),
            *([re.sub(r"[^\w.]+", "-", self.target)] if self.target is not None else []),
            f"seed-{self.seed}",
        ]
        return "_".join(parts)

    @property
    def configuration(self) -> tuple[float | None, str | None, str | None]:
        """What it has in common with the trials of other seeds."""
        return (self.width, self.pruning, self.target)

    @property
    def trained_as(self) -> tuple[float | None, int]:
        """Trials that are equal in this share one training."""
        return (self.width, self.seed)

    def to_json(self) -> dict[str, Any]:
        return {"width": self.width, "prune": self.pruning, "target": self.target, "seed": self.seed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination is one trial. widths, prunings, targets: (None,) for the recipe's own.  seeds: how many."""

    widths: tuple[float | None, ...] = (None,)
    prunings: tuple[str | None, ...] = (None,)
    targets: tuple[str | None, ...] = (None,)
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError("seeds must be at least 1")
        if any(width is not None and width <= 0 for width in self.widths):
            raise ValueError("widths must be positive")

    def trials(self) -> tuple[Trial, ...]:
        """Those that share a training stand together."""
        return tuple(
            Trial(width=width, pruning=pruning, target=target, seed=seed)
            for width, seed, pruning, target in product(
                dict.fromkeys(self.widths),
                range(self.seeds),
                dict.fromkeys(self.prunings),
                dict.fromkeys(self.targets),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One file of a configuration on one runtime, over its seeds.

    accuracies: share of each seed's build.  bytes: the median over the seeds.  median_us: the lower median; None if
    untimed.
    estimate: of the latency on the target, from the least to the most of any seed; None without a target, or where it
    does not run the file.
    smallest, fastest: by the mean accuracy, no other is at least as accurate and smaller, or faster.
    """

    width: float | None
    pruning: str | None
    target: str | None
    format: str
    scheme: str
    runtime: str
    accuracies: tuple[float, ...]
    bytes: float
    median_us: float | None
    estimate: Estimate | None = None
    smallest: bool = False
    fastest: bool = False

    @property
    def mean_accuracy(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)

    def to_json(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "prune": self.pruning,
            "target": self.target,
            "format": self.format,
            "scheme": self.scheme,
            "runtime": self.runtime,
            "accuracies": list(self.accuracies),
            "mean_accuracy": self.mean_accuracy,
            "bytes": self.bytes,
            "median_us": self.median_us,
            "estimated_us": self.estimate and asdict(self.estimate),
            "on_size_frontier": self.smallest,
            "on_latency_frontier": self.fastest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """failures: name of a trial -> why there is no build of it.  page: the HTML report beside the builds.

    sections: of every build; one for each set of test images.  seconds: wall time of this run.
    stage_seconds: sum of the wall times of all distinct stages behind the builds, whenever they ran.
    """

    directory: str
    page: str
    trials: tuple[Trial, ...]
    failures: Mapping[str, str]
    configurations: tuple[Configuration, ...]
    sections: Sequence[Section]
    machine: str
    seconds: float
    stage_seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "page": self.page,
            "trials": [{"name": trial.name, **trial.to_json()} for trial in self.trials],
            "failures": dict(self.failures),
            "configurations": [one.to_json() for one in self.configurations],
            "sections": [section.to_json() for section in self.sections],
            "machine": self.machine,
            "seconds": self.seconds,
            "stage_seconds": self.stage_seconds,
        }
