"""A search on the terminal: what it found, and by how much it missed."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from emb.report.search import render, told_trial
from emb.spec.report import Row
from emb.spec.search import METRICS, Objective, Question, SearchTrial, best_of, constraint_of, nearest_of
from emb.spec.search_report import SearchReport

FIELDS = ("model.arguments.width", "train.epochs")


def trial(number: int, accuracy: float, size: int, error: str = "") -> SearchTrial:
    metrics = {} if error else {"accuracy": accuracy, "bytes": float(size), "latency": 9.1, "macs": 1e5}
    return SearchTrial(
        number=number, values=dict(zip(FIELDS, (0.5, number), strict=True)), metrics=metrics, error=error
    )


def lines_of(constraint: str, trials: list[SearchTrial], **changes: Any) -> list[str]:
    question = Question(
        objectives=(Objective(metric=METRICS["latency"], direction="minimize"),),
        constraints=(constraint_of(constraint),),
    )
    best = best_of(trials, question)
    report = SearchReport(
        directory="d",
        page="d/report.html" if best else "",
        study="lenet-0",
        storage="d/search.db",
        question=question,
        space=("train.epochs=1..9",),
        trials=trials,
        best=tuple(one.number for one in best),
        nearest=None if best else nearest_of(trials, question),
        sections=(),
        builds={one.number: "d/trial" for one in best},
        tests=changes.get("tests", {}),
        machine="a machine",
        seconds=12.3,
    )
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render(report))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_best_comes_first_with_what_the_test_images_say() -> None:
    row = Row(
        file="lenet-int8.tflite",
        format="tflite",
        scheme="int8",
        runtime="litert",
        mode="default",
        bytes=20_000,
        gzip_bytes=1,
        parameters=1,
        macs=1,
        sha256="",
        source="measured",
        accuracy=0.9876,
        accuracy_low=0.98,
        accuracy_high=0.99,
    )
    found = lines_of(
        "bytes<=20kB",
        [trial(0, 99.1, 30_000), trial(1, 98.7, 20_000), trial(2, 0, 0, error="too large\n  why: it is")],
        tests={1: row},
    )
    assert found == [
        "trial  width  epochs  accuracy   bytes  latency  test %         95 %    best",
        "1        0.5       1     98.70  20,000      9.1   98.76  98.00–99.00    best",
        "0        0.5       0     99.10  30,000      9.1       –            –  misses",
        "",
        "searched to minimize latency, bytes<=20000 over train.epochs=1..9",
        "accuracy is over validation images, by which the trials were judged; "
        "the test images judged the best alone, and chose nothing",
        "3 trials in d/search.db; this run took 12 s on a machine",
        "1 could not be built: too large",
        "d/report.html",
    ]


def test_where_nothing_keeps_the_constraint_it_says_by_how_much_the_nearest_misses() -> None:
    assert lines_of("accuracy>=99", [trial(0, 98.5, 1), trial(1, 98.98, 1)])[4:6] == [
        "none of 2 trials keeps accuracy>=99",
        "nearest: trial-1, with accuracy 98.98, 0.02 points below the limit",
    ]
    assert "nearest: trial-0, with macs 100,000, 50,000 macs above the limit" in lines_of("macs<=50k", [trial(0, 1, 1)])
    assert "nearest: trial-0, with bytes 5, which is the limit itself" in lines_of("bytes<5", [trial(0, 1, 5)])


def test_a_trial_is_told_on_one_line() -> None:
    metrics = (METRICS["accuracy"], METRICS["latency"], METRICS["macs"])
    settings = "model.arguments.width=0.5  train.epochs=3"
    assert told_trial(trial(3, 98.765, 1), metrics) == f"trial-3  98.77 %  9.1 µs  100,000 macs  {settings}"
    assert told_trial(trial(3, 0, 0, error="no\n  why: so"), metrics) == f"trial-3  no why: so  {settings}"
