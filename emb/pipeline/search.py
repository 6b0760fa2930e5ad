"""Looks for what serves best under constraints: asks a study what to try, makes it, and tells what came of it.

A trial is judged by its file on the validation images. The test images see the winners alone, at the end, and decide
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from emb.bench import describe_machine
from emb.errors import DataError, EmbError, StoreError
from emb.pipeline.build import Order, build_order, judge_order
from emb.pipeline.json_files import read_json, replace_json
from emb.pipeline.output import require_replaceable
from emb.pipeline.page import write_page
from emb.pipeline.reports import overview, read_build
from emb.pipeline.search_ask import Ask, ask_of, digest_of, resolved
from emb.pipeline.search_database import address_of, open_database
from emb.pipeline.search_study import Claim, Study
from emb.pipeline.sweep import PAGE
from emb.pipeline.trial_plan import time_of, validation_of
from emb.pipeline.validation import RUNTIME_OF
from emb.pipeline.workers import MakeReady, TrialListener
from emb.pipeline.workers import make_ready as make_ready_here
from emb.spec.recipe import Recipe
from emb.spec.report import Row
from emb.spec.search import Question, SearchTrial, best_of, nearest_of
from emb.spec.search_report import SearchReport
from emb.spec.space import Parameter, Space
from emb.store import directory_lock

SEARCH = "search.json"
# Of a frontier, so many are built; the others stand in the table as they were judged.
MOST_WINNERS = 5
# Seconds between two looks at what other processes do.
_POLL_S = 1.0


class SearchListener(TrialListener, Protocol):
    """Hears what a search will do, of each trial that is told, by whichever process, and of the winners' builds."""

    def search_begins(self, space: Space, question: Question, *, total: int, done: int, processes: int) -> None: ...
    def told(self, trial: SearchTrial, *, done: int, misses: bool) -> None: ...
    def waits(self) -> None: ...
    def timing(self, name: str) -> None: ...
    def winners(self, names: Sequence[str]) -> None: ...


def search(
    recipe: str,
    question: Question,
    parameters: Sequence[Parameter],
    *,
    trials: int,
    listener: SearchListener,
    storage: str | None = None,
    output_directory: Path | None = None,
    processes: int | None = None,
    make_ready: MakeReady = make_ready_here,
    data: str | None = None,
    data_dir: Path | None = None,
    target: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> SearchReport:
    """Make so many trials, together with whoever shares the storage, and build the best.

    parameters: what is varied; empty for `space_for`'s own.  storage: see `address_of`.
    output_directory: sweeps/<recipe>-search by default.
    processes: trials at a time, one for each core by default.  make_ready: on this machine, or on others.
    A trial that cannot be built counts, and its reason is kept. Raises EmbError if none can be, if the question has a
    fault, or if the storage or the data fail, which is no fault of a trial.
    """
    began = time.monotonic()
    shared = Order(recipe=recipe, data=data, data_dir=data_dir, target=target, assignments=tuple(assignments))
    ask = ask_of(shared, overrides or {}, parameters)
    name = f"{ask.recipe.name}-{digest_of(ask, question)}"
    directory = output_directory or Path("sweeps") / f"{ask.recipe.name}-search"
    require_replaceable(directory, kind="search", manifest=SEARCH)
    address = address_of(storage, directory=directory)
    if address.is_file:
        _begin(directory, study=name)
    count = min(processes or describe_machine().cores, trials)
    seed = ask.recipe.train.seed
    with closing(open_database(address, name=name)) as database:
        # Not before a server has answered.
        _begin(directory, study=name)
        study = Study(database, name=name, question=question, space=ask.space, seed=seed)
        done = len(study.trials())
        listener.search_begins(ask.space, question, total=trials, done=done, processes=count)
        _make_trials(study, ask, question, total=trials, processes=count, listener=listener, make_ready=make_ready)
        found = study.trials()
        best = best_of(found, question)
        orders = {
            one.number: replace(ask.order(one.values), output_directory=directory / one.name) for one in _some(best)
        }
        _make_winners_ready(orders, processes=count, listener=listener, make_ready=make_ready)
    if not any(trial.metrics for trial in found):
        raise _nothing(found)
    built = _build_winners(orders, listener=listener)
    if built:
        write_page(list(built.values()), directory / PAGE)
    report = SearchReport(
        directory=str(directory),
        page=str(directory / PAGE) if built else "",
        study=name,
        storage=address.shown,
        question=question,
        space=tuple(map(str, ask.space.parameters)),
        trials=found,
        best=tuple(trial.number for trial in best),
        nearest=None if best else nearest_of(found, question),
        sections=overview(list(built.values())) if built else (),
        builds={number: str(build) for number, build in built.items()},
        tests={number: _tested(build, orders[number]) for number, build in built.items()},
        machine=describe_machine().title,
        seconds=round(time.monotonic() - began, 3),
    )
    replace_json(directory / SEARCH, report.to_json())
    return report


def _begin(directory: Path, *, study: str) -> None:
    """Make it a directory of a search, if it is none yet."""
    with directory_lock(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / SEARCH).exists():
            replace_json(directory / SEARCH, {"study": study})


def _make_trials(
    study: Study,
    ask: Ask,
    question: Question,
    *,
    total: int,
    processes: int,
    listener: SearchListener,
    make_ready: MakeReady,
) -> None:
    """Until the search has all its trials: as many side by side as there are processes, then their times one by one."""
    while True:
        claims = study.claim(processes, total=total)
        if claims:
            _make_claims(study, claims, ask, question, processes=processes, listener=listener, make_ready=make_ready)
        elif study.are_others_at_work():
            listener.waits()
            time.sleep(_POLL_S)
        else:
            return


def _make_claims(
    study: Study,
    claims: Sequence[Claim],
    ask: Ask,
    question: Question,
    *,
    processes: int,
    listener: SearchListener,
    make_ready: MakeReady,
) -> None:
    named = {f"trial-{claim.number}": claim for claim in claims}
    orders = {name: replace(ask.order(claim.values), is_trial=True) for name, claim in named.items()}
    alone = [name for name, order in orders.items() if _takes_times(resolved(order))]
    failures = make_ready(orders, processes=processes, alone=alone, listener=listener)
    fatal: EmbError | None = None
    for name, claim in named.items():
        error, metrics = failures.get(name), None
        if error is None:
            if question.is_timed:
                listener.timing(name)
            try:
                metrics = _metrics_of(orders[name], timed=question.is_timed)
            except EmbError as own:
                error = own
        if isinstance(error, StoreError | DataError):
            # No fault of this trial: it stays open, for when the search is run again.
            fatal = fatal or error
            continue
        if study.tell(claim, metrics=metrics, error=str(error) if error else ""):
            trial = SearchTrial(
                number=claim.number, values=claim.values, metrics=metrics or {}, error=str(error) if error else ""
            )
            misses = bool(metrics) and any(question.violations(metrics or {}).values())
            listener.told(trial, done=len(study.trials()), misses=misses)
    if fatal:
        raise fatal


def _takes_times(recipe: Recipe) -> bool:
    """Whether its pruning does."""
    return recipe.prune.is_asked_for and recipe.prune.target.kind == "latency"


def _metrics_of(order: Order, *, timed: bool) -> dict[str, float]:
    """What a trial is judged by, from the store; its times are taken now if they have not been."""
    from emb.pipeline.measuring import Timing

    file, done = judge_order(order, timed=timed)
    graph = read_json(done[file.check].path("graph.json"))
    validation = read_json(done[validation_of(file)].path("validation.json"))
    found = {name: float(graph[name]) for name in ("bytes", "gzip_bytes", "macs", "parameters")}
    found["accuracy"] = 100 * validation["correct"] / validation["total"]
    if timed:
        found["latency"] = Timing.from_json(read_json(done[time_of(file)].path("latency.json"))).summary.median_us
    return found


def _some(best: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Of a long frontier a handful, evenly, with both its ends."""
    if len(best) <= MOST_WINNERS:
        return list(best)
    places = [round(place * (len(best) - 1) / (MOST_WINNERS - 1)) for place in range(MOST_WINNERS)]
    return [best[place] for place in places]


def _make_winners_ready(
    orders: Mapping[int, Order], *, processes: int, listener: SearchListener, make_ready: MakeReady
) -> None:
    if not orders:
        return
    named = {f"trial-{number}": order for number, order in orders.items()}
    listener.winners(list(named))
    alone = [name for name, order in named.items() if _takes_times(resolved(order))]
    failures = make_ready(named, processes=processes, alone=alone, listener=listener)
    for error in failures.values():
        raise error


def _build_winners(orders: Mapping[int, Order], *, listener: SearchListener) -> dict[int, Path]:
    """As `emb build` would, with times and test images: number -> directory."""
    built = {}
    for number, order in orders.items():
        listener.timing(f"trial-{number}")
        built[number] = build_order(order).directory
    return built


def _tested(build: Path, order: Order) -> Row:
    """What the build says of the file that the trial was judged by."""
    file, _ = judge_order(replace(order, is_trial=True), timed=False)
    rows = [row for row in read_build(build).rows if row.file == file.name and row.mode == "default"]
    return next(row for row in rows if row.runtime == RUNTIME_OF[file.format])


def _nothing(found: Sequence[SearchTrial]) -> EmbError:
    """All trials failed: the first reason."""
    from emb.errors import ModelError

    reason = found[0].error if found else "no trial could be suggested"
    return ModelError(
        f"none of {len(found)} trials could be built",
        why=f"{found[0].name if found else 'the search'}: {reason}",
        fix="vary other values, or give another --output to begin anew",
    )
