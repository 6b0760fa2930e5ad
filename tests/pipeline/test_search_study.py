"""The trials of a search in a real database: each belongs to one process, none is lost and none is doubled."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from emb.errors import SpecError, StoreError
from emb.pipeline.search_database import address_of, open_database
from emb.pipeline.search_study import MOST_REPEATS, Study
from emb.spec.search import METRICS, Objective, Question, SearchTrial, best_of, constraint_of
from emb.spec.space import Space, parameter_of

QUESTION = Question(
    objectives=(Objective(metric=METRICS["accuracy"], direction="maximize"),),
    constraints=(constraint_of("bytes<=20kB"),),
)
SPACE = Space(parameters=(parameter_of("width=0.1..2:log"), parameter_of("epochs=1..9"), parameter_of("kind=a,b")))
SMALL = Space(parameters=(parameter_of("kind=a,b"), parameter_of("epochs=1..2")))


def open_study(
    storage: str | None,
    directory: Path,
    *,
    space: Space = SPACE,
    name: str = "lenet",
    question: Question = QUESTION,
) -> Study:
    database = open_database(address_of(storage, directory=directory), name=name)
    return Study(database, name=name, question=question, space=space, seed=0)


@pytest.fixture
def opened() -> Iterator[Callable[..., Study]]:
    """`open_study`, closed at the end."""
    with ExitStack() as stack:

        def opens(*arguments: Any, **named: Any) -> Study:
            study = open_study(*arguments, **named)
            stack.callback(study._database.close)
            return study

        yield opens


def metrics_of(values: Mapping[str, Any]) -> dict[str, float]:
    """A landscape: the wider the better, and the larger."""
    width, epochs = values.get("width", 1), values["epochs"]
    return {"accuracy": 90 + 3 * width + epochs / 3 - (values["kind"] == "a"), "bytes": 20_000 * width}


def searched(study: Study, *, total: int, at_once: int = 2) -> tuple[SearchTrial, ...]:
    while claims := study.claim(at_once, total=total):
        for claim in claims:
            assert study.tell(claim, metrics=metrics_of(claim.values))
    return study.trials()


@pytest.mark.slow
def test_a_search_has_its_trials_and_learns_from_them(tmp_path: Path, opened: Callable[..., Study]) -> None:
    trials = searched(opened(None, tmp_path), total=24)
    assert [trial.number for trial in trials] == list(range(24))
    kept = [trial for trial in trials if trial.metrics["bytes"] <= 20_000]
    assert max(trial.metrics["accuracy"] for trial in kept) > 94.5  # of 96 at most
    # Random ones come first; then most keep the constraint, closely.
    assert sum(trial in kept for trial in trials[12:]) >= 6


@pytest.mark.slow
def test_several_objectives_end_in_a_frontier(tmp_path: Path, opened: Callable[..., Study]) -> None:
    smaller = Objective(metric=METRICS["bytes"], direction="minimize")
    question = Question(objectives=(*QUESTION.objectives, smaller), constraints=QUESTION.constraints)
    best = best_of(searched(opened(None, tmp_path, question=question), total=14), question)
    assert len(best) >= 2
    assert all(trial.metrics["bytes"] <= 20_000 for trial in best)


@pytest.mark.slow
def test_broken_off_it_goes_on_as_if_it_had_not_been(tmp_path: Path, opened: Callable[..., Study]) -> None:
    whole = searched(opened(None, tmp_path / "whole"), total=12)
    first = opened(None, tmp_path / "parts")
    searched(first, total=4)
    left = first.claim(2, total=12)  # and no result: as if it died here
    first._database.close()
    second = opened(None, tmp_path / "parts")
    assert second.claim(2, total=12) == left
    for claim in left:
        assert second.tell(claim, metrics=metrics_of(claim.values))
    assert searched(second, total=12) == whole


def test_two_share_the_trials_and_one_takes_over_what_the_other_left(
    tmp_path: Path, opened: Callable[..., Study]
) -> None:
    one, other = opened(None, tmp_path), opened(None, tmp_path)
    ours, theirs = one.claim(2, total=3), other.claim(2, total=3)
    assert [claim.number for claim in (*ours, *theirs)] == [0, 1, 2]
    assert one.claim(2, total=3) == []
    assert one.are_others_at_work()
    other._database.close()
    assert one.claim(2, total=3) == theirs
    again = opened(None, tmp_path)
    assert again.claim(2, total=3) == []
    for claim in (*ours, *theirs):
        assert not again.tell(claim, metrics=metrics_of(claim.values))  # it is not its own
        assert one.tell(claim, metrics=metrics_of(claim.values))
        assert not one.tell(claim, metrics={"accuracy": 0.0, "bytes": 0.0})  # it has been told
    assert not one.are_others_at_work()
    assert [trial.metrics for trial in one.trials()] == [metrics_of(claim.values) for claim in (*ours, *theirs)]


def test_what_was_tried_is_not_tried_again(tmp_path: Path, opened: Callable[..., Study]) -> None:
    """A space of four has four trials, whatever is asked for; what Optuna suggests again takes no work."""
    study = opened(None, tmp_path, space=SMALL)
    trials = searched(study, total=40)
    assert len(trials) == len({json.dumps(trial.values) for trial in trials}) <= 4
    assert study.claim(2, total=40) == []
    assert len(trials) == 4 or len(study._study.trials) >= MOST_REPEATS


def test_a_trial_that_fails_keeps_its_reason_and_counts(tmp_path: Path, opened: Callable[..., Study]) -> None:
    study = opened(None, tmp_path)
    (claim,) = study.claim(1, total=2)
    assert study.tell(claim, error="it does not fit\n  why: the target is small")
    searched(study, total=2)
    failed, _ = study.trials()
    assert (failed.error, failed.metrics) == ("it does not fit\n  why: the target is small", {})
    assert failed.values == claim.values


def test_another_question_has_its_own_trials(tmp_path: Path, opened: Callable[..., Study]) -> None:
    searched(opened(None, tmp_path), total=3)
    assert opened(None, tmp_path, name="other").trials() == ()


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql://me:secret@host:5433/searches", "postgresql://me@host:5433/searches"),
        ("postgresql+psycopg://me:secret@host/searches?password=secret", "postgresql://me@host/searches"),
        ("sqlite:///some/where.db", "some/where.db"),
        (None, "place/search.db"),
    ],
)
def test_an_address_is_shown_without_its_password(storage: str | None, shown: str) -> None:
    assert address_of(storage, directory=Path("place")).shown == shown


@pytest.mark.parametrize(
    "storage", ["secret", "mysql://me:secret@host/searches", "postgresql://me:secret@host", "://secret"]
)
def test_what_is_no_database_is_told_without_repeating_it(storage: str) -> None:
    with pytest.raises(SpecError) as caught:
        address_of(storage, directory=Path())
    assert str(caught.value) == (
        "--storage is no database that a search can use\n"
        "  why: it is neither postgresql://USER@HOST/NAME nor sqlite:///FILE\n"
        "  fix: write it so, or leave it out: the search then keeps its trials in a file beside its builds"
    )


def test_a_file_that_is_no_database_is_told(tmp_path: Path, opened: Callable[..., Study]) -> None:
    (tmp_path / "search.db").write_text("something else, and long enough to be read as a header" * 10)
    with pytest.raises(StoreError) as caught:
        opened(None, tmp_path)
    assert str(caught.value) == (
        f"cannot use the database {tmp_path}/search.db\n  why: file is not a database\n"
        "  fix: remove the file to begin anew: what was trained is in the cache"
    )


# On a real server

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_search_study import metrics_of, open_study
study = open_study(sys.argv[1], Path())
print("ready", flush=True)
while True:
    claims = study.claim(2, total={total})
    for claim in claims:
        time.sleep(0.03)
        if study.tell(claim, metrics=metrics_of(claim.values)):
            print(claim.number, flush=True)
    if not claims and not study.are_others_at_work():
        break
    if not claims:
        time.sleep(0.05)
"""
TOTAL = 24


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_on_postgresql_whoever_dies(postgresql: Any, opened: Callable[..., Study]) -> None:
    """Three processes, two of which are killed somewhere; a fourth comes later."""
    program = WORKER.format(tests=str(Path(__file__).parent), total=TOTAL)

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, postgresql.url]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    moments = random.Random(0)
    workers = [begin() for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
    for worker in workers[:2]:
        time.sleep(moments.uniform(0.1, 0.6))
        worker.send_signal(signal.SIGKILL)
    workers.append(begin())
    told = []
    for worker in workers:
        with worker:
            assert worker.stdout is not None
            assert worker.stderr is not None
            worker.wait(timeout=300)  # where a dead one's trials were not seen to be free, for ever
            # Not communicate(), which would pass over what was read ahead for the first line.
            told += [int(line) for line in worker.stdout.read().split() if line != "ready"]
            assert worker.returncode == (-signal.SIGKILL if worker in workers[:2] else 0), worker.stderr.read()
    trials = opened(postgresql.url, Path()).trials()
    assert [trial.number for trial in trials] == list(range(TOTAL))
    assert all(trial.metrics == metrics_of(trial.values) for trial in trials)
    # One that was killed may have told a trial and not said so.
    assert len(told) == len(set(told)) >= TOTAL - 2


@pytest.mark.slow
def test_a_server_that_goes_away_is_told_and_nothing_is_lost(postgresql: Any, opened: Callable[..., Study]) -> None:
    study = opened(postgresql.url, Path(), name="gone")
    claims = study.claim(2, total=3)
    assert study.tell(claims[0], metrics=metrics_of(claims[0].values))
    postgresql.stop()
    try:
        with pytest.raises(StoreError) as caught:
            study.tell(claims[1], metrics=metrics_of(claims[1].values))
        with pytest.raises(StoreError, match="cannot use the database") as unreachable:
            opened(postgresql.url, Path())
    finally:
        postgresql.start()
    assert caught.value.what == f"the database {postgresql.shown} cannot be reached any more"
    assert caught.value.fix.startswith("run the same command again when it can")
    assert unreachable.value.fix == (
        "check that the server runs and that the URL is right; nothing has been trained yet"
    )
    assert postgresql.password not in str(caught.value) + str(unreachable.value)
    # The same process goes on with what it has, if nobody took it meanwhile.
    assert study.tell(claims[1], metrics=metrics_of(claims[1].values))
    assert [trial.number for trial in searched(opened(postgresql.url, Path(), name="gone"), total=3)] == [0, 1, 2]


@pytest.mark.slow
def test_a_wrong_password_is_told(postgresql: Any, opened: Callable[..., Study]) -> None:
    wrong = postgresql.url.replace(postgresql.password, "wr0ng")
    with pytest.raises(StoreError) as caught:
        opened(wrong, Path())
    assert "password authentication failed" in caught.value.why
    assert "wr0ng" not in str(caught.value)
