"""Builds every trial of a grid: what they share once, several at a time, and the times at the end, one by one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, median_low
from typing import Any, Protocol

from emb.bench import describe_machine
from emb.errors import EmbError
from emb.pipeline.build import Order, build_order
from emb.pipeline.json_files import read_json, replace_json
from emb.pipeline.output import require_replaceable
from emb.pipeline.page import write_page
from emb.pipeline.recipes import load_target
from emb.pipeline.reports import overview
from emb.pipeline.request import resolve
from emb.pipeline.workers import MakeReady, TrialListener, make_ready
from emb.report.frontier import frontier
from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.fit import Estimate
from emb.spec.overview import Entry
from emb.spec.pruning import NONE, goal_of, split_text
from emb.spec.recipe import Recipe
from emb.spec.sweep import Configuration, Grid, SweepReport, Trial
from emb.store import MANIFEST, directory_lock

SWEEP = "sweep.json"
PAGE = "report.html"


class SweepListener(TrialListener, Protocol):
    """Hears of trials that are made ready, and then of those whose times are taken."""

    def planned(self, names: Sequence[str], processes: int) -> None: ...
    def timing(self, name: str) -> None: ...


def sweep(
    recipe: str,
    grid: Grid,
    *,
    listener: SweepListener,
    output_directory: Path | None = None,
    processes: int | None = None,
    make_ready: MakeReady = make_ready,
    data: str | None = None,
    data_dir: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> SweepReport:
    """Build all trials of the grid into one directory each, and compare them.

    output_directory: sweeps/<recipe> by default. What it holds of an earlier run of the sweep is used again.
    processes: how many trials are made ready at a time; by default one for each core.
    make_ready: what makes them ready: processes on this machine, unless said otherwise.
    A trial that cannot be built stands in `failures`, and the others are done. Raises EmbError if none can be.
    """
    began = time.monotonic()
    fields = dict(overrides or {})
    bare = {key: value for key, value in fields.items() if not key.startswith("prune.")}
    wanted = resolve(recipe, data=data, overrides=bare, assignments=assignments)
    directory = output_directory or Path("sweeps") / wanted.name
    require_replaceable(directory, kind="sweep", manifest=SWEEP)
    trials = {trial.name: trial for trial in grid.trials()}
    prunes = any(_prunes(trial, wanted) for trial in trials.values())
    shared = Order(recipe=recipe, data=data, data_dir=data_dir, assignments=tuple(assignments))
    orders = {
        name: replace(
            shared,
            output_directory=directory / name,
            # What is said of pruning is no matter where nothing is pruned, unless nothing is pruned anywhere.
            overrides=_overrides(trial, wanted, fields if _prunes(trial, wanted) or not prunes else bare),
            target=trial.target,
        )
        for name, trial in trials.items()
    }
    for order in orders.values():
        # What no trial could be built with is said before the first one is.
        resolve(recipe, data=data, overrides=order.overrides, assignments=assignments)
        if order.target is not None:
            load_target(order.target)
    with directory_lock(directory):
        directory.mkdir(parents=True, exist_ok=True)
        replace_json(
            directory / SWEEP, {"recipe": wanted.name, "trials": [trial.to_json() for trial in trials.values()]}
        )
    count = min(processes or describe_machine().cores, len(trials))
    listener.planned(list(trials), count)
    failures = _make_ready(orders, trials, make_ready=make_ready, processes=count, listener=listener)
    for name in orders:
        if name not in failures:
            listener.timing(name)
            try:
                build_order(orders[name])
            except EmbError as error:
                failures[name] = error
    if len(failures) == len(trials):
        raise next(iter(failures.values()))
    report = _report(directory, trials, failures, seconds=time.monotonic() - began)
    replace_json(directory / SWEEP, report.to_json())
    return report


def _prunes(trial: Trial, recipe: Recipe) -> bool:
    return recipe.prune.is_asked_for if trial.pruning is None else trial.pruning != NONE


def _overrides(trial: Trial, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's own fields over those of the sweep."""
    own: dict[str, Any] = {"train.seed": recipe.train.seed + trial.seed}
    if trial.width is not None:
        own["model.arguments.width"] = trial.width
    if trial.pruning is not None:
        own["prune"] = trial.pruning
    return {**given, **own}


def _make_ready(
    orders: Mapping[str, Order],
    trials: Mapping[str, Trial],
    *,
    make_ready: MakeReady,
    processes: int,
    listener: TrialListener,
) -> dict[str, EmbError]:
    """First one trial of each training that others share, so that no process waits for another's; then the others."""
    first: dict[Any, str] = {}
    for name, trial in trials.items():
        first.setdefault(trial.trained_as, name)
    failures: dict[str, EmbError] = {}
    for names in (list(first.values()), [name for name in orders if name not in first.values()]):
        failures |= make_ready(
            {name: orders[name] for name in names},
            processes=processes,
            alone=[name for name in names if _is_timed(trials[name])],
            listener=listener,
        )
    return failures


def _is_timed(trial: Trial) -> bool:
    """Whether its pruning takes times."""
    if trial.pruning is None or trial.pruning == NONE:
        return False
    method, goal = split_text(trial.pruning)
    return goal_of(method, goal).kind == "latency"


def _report(
    directory: Path, trials: Mapping[str, Trial], failures: Mapping[str, EmbError], *, seconds: float
) -> SweepReport:
    built = {name: directory / name for name in trials if name not in failures}
    sections = overview(list(built.values()))
    write_page(list(built.values()), directory / PAGE)
    entries = {
        name: [entry for section in sections for entry in section.entries if entry.build == str(path)]
        for name, path in built.items()
    }
    return SweepReport(
        directory=str(directory),
        page=str(directory / PAGE),
        trials=tuple(trials.values()),
        failures={name: str(error) for name, error in failures.items()},
        configurations=_configurations(trials, entries),
        sections=sections,
        machine=describe_machine().title,
        seconds=round(seconds, 3),
        stage_seconds=round(_stage_seconds(built.values()), 3),
    )


def _configurations(trials: Mapping[str, Trial], entries: Mapping[str, Sequence[Entry]]) -> tuple[Configuration, ...]:
    grouped: dict[tuple[Any, ...], list[Entry]] = {}
    for name, found in entries.items():
        for entry in found:
            if entry.row.accuracy is not None and not entry.device:
                key = (*trials[name].configuration, entry.row.format, entry.row.scheme, entry.row.runtime)
                grouped.setdefault(key, []).append(entry)
    made = [_configuration(key, found) for key, found in grouped.items()]
    gains = [one.mean_accuracy for one in made]
    smallest = frontier([one.bytes for one in made], gains)
    fastest = frontier([one.median_us for one in made], gains, equal_within=LEAST_DIFFERENCE)
    return tuple(
        replace(one, smallest=small, fastest=fast) for one, small, fast in zip(made, smallest, fastest, strict=True)
    )


def _configuration(key: tuple[Any, ...], entries: Sequence[Entry]) -> Configuration:
    width, pruning, target, file_format, scheme, runtime = key
    times = [entry.row.latency.median_us for entry in entries if entry.row.latency]
    return Configuration(
        width=width,
        pruning=pruning,
        target=target,
        format=file_format,
        scheme=scheme,
        runtime=runtime,
        accuracies=tuple(entry.row.accuracy for entry in entries if entry.row.accuracy is not None),
        bytes=median(entry.row.bytes for entry in entries),
        # What disturbs a run only adds to it, and seeds run the same kernels, on nearly as many channels if pruned.
        median_us=median_low(times) if times else None,
        estimate=_widest([entry.estimate for entry in entries if entry.estimate]),
    )


def _widest(estimates: Sequence[Estimate]) -> Estimate | None:
    if not estimates:
        return None
    return Estimate(
        lowest_us=min(one.lowest_us for one in estimates),
        highest_us=max(one.highest_us for one in estimates),
        source=estimates[0].source,
    )


def _stage_seconds(builds: Iterable[Path]) -> float:
    """Of every distinct stage behind the builds once."""
    seconds: dict[str, float] = {}
    for build in builds:
        for stage in read_json(build / MANIFEST)["stages"].values():
            key = repr(sorted((name, repr(value)) for name, value in stage.items() if name not in ("seconds", "files")))
            seconds[key] = stage["seconds"]
    return sum(seconds.values())
