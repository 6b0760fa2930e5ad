"""`emb bench`: rounds in turn, rows of threads, throughput, and the document it prints."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.bench import describe_machine
from emb.bench.energy import Counters
from emb.bench.machine import is_virtual
from emb.bench.rounds import summary_of
from emb.errors import EmbError, RuntimeFailure, SpecError
from emb.pipeline import rounds as rounds_module
from emb.pipeline.bench import _Line, _short_notes
from emb.pipeline.rounds import Way, rate, take_turns
from emb.pipeline.threads import threads_of
from emb.runtimes import RuntimeProcess
from emb.spec.contract import Pixels
from emb.spec.latency import Round

ROUND = Round(samples_ns=(1,), cold_start_ns=1, peak_memory_bytes=None, energy_uj=None)
WAYS = [
    Way(
        path=Path(f"{name}.tflite"),
        runtime="litert",
        mode="default",
        threads=1,
        images=np.zeros((1, 2, 2, 1), np.uint8),
        pixels=Pixels(),
    )
    for name in "abc"
]


class Clock:
    """Time goes on when something is done, and by as much as it is said to take."""

    def __init__(self, **takes_s: float) -> None:
        self.now_s = 0.0
        self.takes_s = takes_s
        self.done: list[str] = []

    def one_round(self, way: Way, *, measure_s: float, counters: Counters) -> Round:
        self.done.append(way.path.stem)
        self.now_s += self.takes_s.get(way.path.stem, 0.5)
        return ROUND


def turns(monkeypatch: pytest.MonkeyPatch, clock: Clock, *, rounds: int) -> list[list[Round] | EmbError]:
    monkeypatch.setattr(rounds_module, "one_round", clock.one_round)
    monkeypatch.setattr(rounds_module, "monotonic", lambda: clock.now_s)
    return take_turns(WAYS, rounds=rounds, counters=Counters(), told=lambda _: None)


def test_rows_take_turns_and_the_order_turns_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    assert turns(monkeypatch, clock, rounds=3) == [[ROUND] * 3] * 3
    assert "".join(clock.done) == "abccbaabc"


def test_a_slow_row_has_fewer_rounds_and_the_others_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = turns(monkeypatch, Clock(a=9.0, b=200.0), rounds=10)
    assert [len(taken) for taken in found if not isinstance(taken, EmbError)] == [6, 1, 10]


def test_a_row_that_fails_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    failure = RuntimeFailure("it crashed")

    def one_round(way: Way, **options: Any) -> Round:
        taken = clock.one_round(way, **options)
        if clock.done.count("b") == 2 and way.path.stem == "b":
            raise failure
        return taken

    monkeypatch.setattr(rounds_module, "one_round", one_round)
    found = take_turns(WAYS, rounds=4, counters=Counters(), told=lambda _: None)
    assert found == [[ROUND] * 4, failure, [ROUND] * 4]
    assert clock.done.count("b") == 2


def test_many_rounds_end_when_no_row_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = turns(monkeypatch, Clock(), rounds=10**12)
    assert [len(taken) for taken in found if not isinstance(taken, EmbError)] == [120] * 3


def test_a_row_with_fewer_rounds_says_so() -> None:
    latency = summary_of([ROUND], threads=1, virtual=False)
    fields = {"file": "a.tflite", "runtime": "litert", "mode": "reference", "latency": latency}
    assert _short_notes([_Line(fields=fields), _Line(fields={"file": "b.tflite"})], 10) == [
        "a.tflite on litert (reference): 1 round of 10, as more would take over a minute"
    ]


@given(
    workers=st.lists(st.tuples(st.integers(0, 10**8), st.integers(10**5, 10**8)), min_size=1, max_size=4),
)
def test_the_rate_of_steady_workers_is_the_sum_of_theirs(workers: list[tuple[int, int]]) -> None:
    ends = [begin + run_ns * np.arange(1, 2 + (10**9 // run_ns)) for begin, run_ns in workers]
    images_per_s, window_s = rate(ends)
    assert images_per_s == pytest.approx(sum(1e9 / run_ns for _, run_ns in workers), rel=1e-6)
    assert 0 < window_s <= 1.1


def test_what_one_does_alone_is_not_counted() -> None:
    together = np.arange(0, 1_000_000_001, 100_000_000)
    alone_before = np.concatenate([np.arange(-(10**9), 0, 1_000), together])
    assert rate([together, alone_before]) == (pytest.approx(20), pytest.approx(1.0))


def test_workers_that_do_not_meet_have_no_rate() -> None:
    with pytest.raises(RuntimeFailure) as caught:
        rate([np.array([1, 2]), np.array([2, 3])])
    assert str(caught.value) == (
        "the processes did not run at the same time\n"
        "  why: one had ended before another had done its first run\n"
        "  fix: measure again when the machine does nothing else"
    )


@pytest.mark.parametrize(
    ("text", "cores", "counts"),
    [(None, 4, (1, 4)), (None, 1, (1,)), ("all", 4, (4,)), ("all", 1, (1,)), ("1", 4, (1,)), ("4", 4, (4,))],
)
def test_threads(text: str | None, cores: int, counts: tuple[int, ...]) -> None:
    assert threads_of(text, cores=cores) == counts


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5", "²"])
def test_threads_that_are_no_number(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        threads_of(text, cores=4)
    assert str(caught.value) == f"--threads cannot be {text!r}\n  fix: give a number from 1 to 4, or all"


def test_more_threads_than_cores() -> None:
    with pytest.raises(SpecError) as caught:
        threads_of("5", cores=4)
    assert str(caught.value) == (
        "--threads 5 are more than this machine has cores\n"
        "  why: emb may use 4 here, and threads that wait for each other say nothing of a model\n"
        "  fix: give a number from 1 to 4, or all"
    )


ROW_KEYS = [
    *("file", "format", "scheme", "runtime", "mode", "bytes", "gzip_bytes", "parameters", "macs"),
    *("accuracy", "accuracy_low", "accuracy_high", "top5", "expected_calibration_error", "agreement"),
    *("latency_us", "cold_start_us", "throughput", "energy_uj", "peak_memory_bytes", "sha256", "source"),
]


@pytest.mark.slow
def test_the_document(emb: Any, built: Any) -> None:
    report = emb.json("bench", "built/lenet-int8.tflite", "--runtime", "litert", "--rounds", "2")
    assert list(report) == ["model", "images", "rows", "errors", "machine", "load_average", "protocol", "notes"]
    assert list(report["load_average"]) == ["before", "after"]
    assert report["errors"] == []
    assert any(note.startswith("energy: ") for note in report["notes"])
    cores = describe_machine().cores
    ways = [(row["mode"], row["latency_us"]["threads"]) for row in report["rows"]]
    assert ways == [("default", count) for count in dict.fromkeys((1, cores))] + [("reference", 1)]
    for row in report["rows"]:
        assert list(row) == ROW_KEYS
        assert row["source"] == "measured"
        latency = row["latency_us"]
        assert list(latency) == ["median", "low", "high", "p90", "p99", "runs", "threads", "rounds", "noise"]
        assert latency["median"] == pytest.approx(sum(latency["rounds"]) / 2)
        assert (latency["low"], latency["high"]) == (None, None)  # an interval needs six rounds
        assert latency["runs"] >= 4
        # A network of some microseconds, whose threads hand each other work.
        assert any("virtual machine" in why for why in latency["noise"]) == (latency["threads"] > 1 and is_virtual())
        assert row["cold_start_us"] > 0
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        if row["mode"] == "reference":
            assert row["throughput"] is None
            continue
        assert list(row["throughput"]) == ["images_per_s", "processes", "threads", "window_s"]
        assert row["throughput"]["images_per_s"] > 0
        assert row["throughput"]["processes"] == cores // latency["threads"]
        assert row["throughput"]["window_s"] > 0


@pytest.mark.slow
@pytest.mark.long
def test_of_a_build_a_runtime_measures_what_it_runs(emb: Any, built: Any) -> None:
    arguments = ("--threads", "1", "--rounds", "1")
    report = emb.json("bench", "built", "--runtime", "onnxruntime", *arguments)
    assert {(row["format"], row["runtime"]) for row in report["rows"]} == {("onnx", "onnxruntime")}
    done = emb.run("bench", "built/lenet-int8.tflite", "--runtime", "onnxruntime", *arguments, expect=2)
    assert done.stderr.startswith("error: 'onnxruntime' does not run lenet-int8.tflite\n")
    assert "known: litert, tflite-runtime" in done.stderr


@pytest.mark.slow
def test_six_rounds_have_an_interval(emb: Any, built: Any) -> None:
    arguments = ("built/lenet-float32.tflite", "--runtime", "tflite-runtime", "--threads", "all", "--rounds", "6")
    latency = emb.json("bench", *arguments)["rows"][0]["latency_us"]
    assert latency["threads"] == describe_machine().cores
    assert len(latency["rounds"]) == 6
    assert min(latency["rounds"]) <= latency["median"] <= max(latency["rounds"])
    assert latency["low"] <= 0.99 * latency["median"]
    assert latency["high"] >= 1.01 * latency["median"]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(emb: Any, built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are warm wait for it at the start, and must not do so for ever."""
    time_runs, killed = RuntimeProcess.time_runs, []

    def kill_one(self: RuntimeProcess, *arguments: Any, **options: Any) -> Any:
        if not killed:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        return time_runs(self, *arguments, **options)

    monkeypatch.setattr(RuntimeProcess, "time_runs", kill_one)
    images = np.zeros((1, 28, 28, 1), np.uint8)
    way = replace(WAYS[0], path=emb.home / "built" / "lenet-int8.tflite", images=images)
    with pytest.raises(RuntimeFailure, match=r"litert .* lenet-int8\.tflite"):
        rounds_module.together(way, processes=3, run_s=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "0"), "--threads cannot be '0'\n  fix: give a number from 1 to {cores}, or all\n"),
        (("--threads", "many"), "--threads cannot be 'many'\n  fix: give a number from 1 to {cores}, or all\n"),
        (("x", "--compare", "--rounds", "3"), "--rounds does not go with --compare\n  fix: leave one of them out\n"),
        (("x", "--ensemble", "--rounds", "3"), "--rounds does not go with --ensemble\n  fix: leave one of them out\n"),
        (
            ("--host", "pi@board", "--rounds", "3"),
            "--rounds does not go with --host\n  why: a board runs what the bundle says, with one thread and with all\n"
            "  fix: leave one of them out\n",
        ),
    ],
)
def test_what_is_refused(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    done = emb.run("bench", "x", *arguments, expect=2)
    assert done.stderr == "error: " + message.format(cores=describe_machine().cores)
