"""Looks for what serves best under constraints: asks a study what to try, makes it, and tells what came of it.

A trial is judged by its file on the validation images. The test images see the winners alone, at the end, and decide
nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from emb import data as data_sets
from emb.bench import describe_machine, machine_digest
from emb.errors import DataError, EmbError, StoreError
from emb.pipeline.build import Order, build_order, judge_order
from emb.pipeline.digests import digest_of_path
from emb.pipeline.json_files import read_json, replace_json
from emb.pipeline.output import require_replaceable
from emb.pipeline.page import write_page
from emb.pipeline.recipes import load_target
from emb.pipeline.reports import overview, read_build
from emb.pipeline.request import data_request, resolve
from emb.pipeline.search_database import address_of, open_database
from emb.pipeline.search_space import space_for
from emb.pipeline.search_study import Claim, Study
from emb.pipeline.sweep import PAGE, processes_here
from emb.pipeline.trial_plan import time_of, validation_of
from emb.pipeline.validation import RUNTIME_OF
from emb.pipeline.workers import Crew, TrialListener, make_ready
from emb.spec.pruning import NONE
from emb.spec.recipe import Recipe
from emb.spec.report import Row
from emb.spec.search import Question, SearchTrial, best_of, nearest_of
from emb.spec.search_report import SearchReport
from emb.spec.space import Parameter, Space
from emb.store import canonical_json, directory_lock

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """What every order of the search has in common."""

    recipe: Recipe
    shared: Order
    fields: Mapping[str, Any]
    prunes: bool

    def order(self, values: Mapping[str, Any]) -> Order:
        """A build with these values. What is said of pruning is no matter where it prunes nothing."""
        fields = {**self.fields, **values}
        pruning = values.get("prune", NONE if not self.recipe.prune.is_asked_for else "")
        if pruning == NONE and self.prunes:
            fields = {key: value for key, value in fields.items() if not key.startswith("prune.")}
        return replace(self.shared, overrides=fields)


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
    data: str | None = None,
    data_dir: Path | None = None,
    target: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> SearchReport:
    """Make so many trials, together with whoever shares the storage, and build the best.

    parameters: what is varied; empty for `space_for`'s own.  storage: see `address_of`.
    output_directory: sweeps/<recipe>-search by default.
    A trial that cannot be built counts, and its reason is kept. Raises EmbError if none can be, if the question has a
    fault, or if the storage or the data fail, which is no fault of a trial.
    """
    began = time.monotonic()
    fields = {key: value for key, value in (overrides or {}).items() if value is not None}
    bare = {key: value for key, value in fields.items() if not key.startswith("prune.")}
    shared = Order(recipe=recipe, data=data, data_dir=data_dir, target=target, assignments=tuple(assignments))
    wanted = resolve(recipe, data=data, overrides=bare, assignments=assignments)
    ask, space = _asked(wanted, shared, fields, parameters)
    directory = output_directory or Path("sweeps") / f"{wanted.name}-search"
    require_replaceable(directory, kind="search", manifest=SEARCH)
    address = address_of(storage, directory=directory)
    name = f"{wanted.name}-{_digest(ask, question, space)}"
    if address.is_file:
        _begin(directory, recipe=wanted.name, study=name)
    database = open_database(address, name=name)
    study = Study(database, name=name, question=question, space=space, seed=wanted.train.seed)
    count = min(processes or processes_here(), trials)
    try:
        # Not before a server has answered.
        _begin(directory, recipe=wanted.name, study=name)
        done = study.trials()
        listener.search_begins(space, question, total=trials, done=len(done), processes=count)
        with Crew() as crew:
            _make_trials(study, ask, question, total=trials, processes=count, listener=listener, crew=crew)
            found = study.trials()
            best = best_of(found, question)
            orders = {
                one.name: replace(ask.order(one.values), output_directory=directory / one.name) for one in _some(best)
            }
            _make_winners_ready(orders, processes=count, listener=listener, crew=crew)
    finally:
        study.close()
    if not any(trial.metrics for trial in found):
        raise _nothing(found)
    built = _build_winners(orders, listener=listener)
    report = SearchReport(
        directory=str(directory),
        page=str(directory / PAGE) if built else "",
        study=name,
        storage=address.shown,
        question=question,
        space=tuple(map(str, space.parameters)),
        trials=found,
        best=tuple(trial.number for trial in best),
        nearest=None if best else nearest_of(found, question),
        sections=overview(built) if built else (),
        builds={trial.number: str(directory / trial.name) for trial in _some(best)},
        tests={trial.number: _tested(directory / trial.name, ask.order(trial.values)) for trial in _some(best)},
        machine=describe_machine().title,
        seconds=round(time.monotonic() - began, 3),
    )
    if built:
        write_page(built, directory / PAGE)
    replace_json(directory / SEARCH, report.to_json())
    return report


def _asked(
    recipe: Recipe, shared: Order, fields: Mapping[str, Any], parameters: Sequence[Parameter]
) -> tuple[_Ask, Space]:
    """The orders' common part and the space, of which every choice and both ends of every range can be resolved."""
    space = space_for(recipe, parameters)
    prunings = [one for one in space.parameters if one.field == "prune"]
    prunes = recipe.prune.is_asked_for or any(value != NONE for one in prunings for value in one.samples)
    ask = _Ask(recipe=recipe, shared=shared, fields=fields, prunes=prunes)
    first = {one.field: one.samples[0] for one in space.parameters}
    for one in space.parameters:
        for value in one.samples:
            _resolved(ask.order({**first, one.field: value}))
    if shared.target is not None:
        load_target(shared.target)
    return ask, space


def _begin(directory: Path, *, recipe: str, study: str) -> None:
    """Make it a directory of a search, if it is none yet."""
    with directory_lock(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / SEARCH).exists():
            replace_json(directory / SEARCH, {"recipe": recipe, "study": study})


def _resolved(order: Order) -> Recipe:
    return resolve(str(order.recipe), data=order.data, overrides=order.overrides, assignments=order.assignments)


def _digest(ask: _Ask, question: Question, space: Space) -> str:
    """Of all that decides what a trial is and how it is judged, with the images and, where times count, the machine."""
    request = data_request(ask.recipe, data_dir=ask.shared.data_dir)
    document = {
        "recipe": asdict(ask.recipe),
        "fields": dict(ask.fields),
        "target": ask.shared.target,
        "question": str(question),
        "space": [str(one) for one in space.parameters],
        "data": data_sets.digest(ask.recipe.data.name, request),
        "model": digest_of_path(Path(ask.recipe.model.file)) if ask.recipe.model.file else "",
        "machine": machine_digest(describe_machine()) if question.is_timed else "",
    }
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:12]


def _make_trials(
    study: Study,
    ask: _Ask,
    question: Question,
    *,
    total: int,
    processes: int,
    listener: SearchListener,
    crew: Crew,
) -> None:
    """Until the search has all its trials: as many side by side as there are processes, then their times one by one."""
    while True:
        claims = study.claim(processes, total=total)
        if claims:
            _make_claims(study, claims, ask, question, processes=processes, listener=listener, crew=crew)
        elif study.are_others_at_work():
            listener.waits()
            time.sleep(_POLL_S)
        else:
            return


def _make_claims(
    study: Study,
    claims: Sequence[Claim],
    ask: _Ask,
    question: Question,
    *,
    processes: int,
    listener: SearchListener,
    crew: Crew,
) -> None:
    named = {f"trial-{claim.number}": claim for claim in claims}
    orders = {name: replace(ask.order(claim.values), is_trial=True) for name, claim in named.items()}
    alone = [name for name, order in orders.items() if _takes_times(_resolved(order))]
    failures = make_ready(orders, processes=processes, alone=alone, listener=listener, crew=crew)
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


def _make_winners_ready(orders: Mapping[str, Order], *, processes: int, listener: SearchListener, crew: Crew) -> None:
    if not orders:
        return
    listener.winners(list(orders))
    alone = [name for name, order in orders.items() if _takes_times(_resolved(order))]
    failures = make_ready(orders, processes=processes, alone=alone, listener=listener, crew=crew)
    for error in failures.values():
        raise error


def _build_winners(orders: Mapping[str, Order], *, listener: SearchListener) -> list[Path]:
    """As `emb build` would, with times and test images: the directories."""
    for name, order in orders.items():
        listener.timing(name)
        build_order(order)
    return [order.output_directory for order in orders.values() if order.output_directory]


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
