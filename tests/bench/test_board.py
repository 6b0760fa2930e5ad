"""Statistics and doubts of what a board measured, on runs made up for the purpose."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from emb.bench.board import doubts
from emb.spec.board import BoardMachine, BoardMoment, BoardRun, BoardState, Throttling

FLAGS = [field.name for field in fields(Throttling) if field.name != "raw"]
QUIET = Throttling(raw=0, **dict.fromkeys(FLAGS, False))
STATE = BoardState(
    governor="performance",
    frequency_hz=(1_500_000_000, None, 1_400_000_000),
    highest_frequency_hz=(1_500_000_000, None, 1_500_000_000),
    temperature_c={"cpu-thermal": 50.5, "other": 20.0},
    throttled=QUIET,
    load_average=0.2,
)
MACHINE = BoardMachine(
    board="Raspberry Pi 4 Model B Rev 1.4",
    processor=None,
    machine="aarch64",
    system="Linux",
    kernel="6.1",
    cores=4,
    memory_bytes=1_000_000_000,
    python="3.11.2",
    glibc="2.36",
    numpy="1.26.4",
    runtimes={"litert": "2.3.0", "tflite-runtime": None},
)


def run(**changes: Any) -> BoardRun:
    """Six seconds, two samples in each: 1,000 µs in the first three, then 1,300."""
    usual: dict[str, Any] = {
        "bundle": "ab" * 32,
        "name": "lenet-int8",
        "target": "rpi4",
        "model": "lenet-int8.tflite",
        "sha256": "cd" * 32,
        "runtime": "litert",
        "version": "2.3.0",
        "mode": "default",
        "threads": 1,
        "threads_alive": 2,
        "seconds": 6.0,
        "warm_up_runs": 100,
        "kept_one_run_in": 1,
        "peak_memory_bytes": 60_000_000,
        "machine": MACHINE,
        "before": STATE,
        "after": STATE,
        "course": tuple(
            BoardMoment(at_ns=second * 10**9 + 5, frequency_hz=STATE.frequency_hz, temperature_c=STATE.temperature_c)
            for second in range(5)
        ),
        "start_ns": tuple(half * 500_000_000 + 5 for half in range(12)),
        "latency_ns": tuple(1_000_000 if half < 6 else 1_300_000 for half in range(12)),
    }
    return BoardRun(**{**usual, **changes})


def test_statistics() -> None:
    measured = run(latency_ns=(*range(1_000, 12_000, 1_000), 50_000))
    assert measured.median_us == 6.5
    assert measured.p90_us == 11.0
    assert measured.p99_us == 50.0


def test_the_sustained_curve() -> None:
    curve = run().sustained
    assert [point.at_s for point in curve] == [0, 1, 2, 3, 4, 5]
    assert [point.median_us for point in curve] == [1000, 1000, 1000, 1300, 1300, 1300]
    assert {point.samples for point in curve} == {2}
    assert [point.frequency_hz for point in curve] == [1_400_000_000] * 5 + [None]
    assert [point.temperature_c for point in curve] == [50.5] * 5 + [None]
    assert (run().first_us, run().sustained_us) == (1000, 1300)
    # A run that took longer than a second leaves out the seconds in which none began.
    assert [point.at_s for point in run(start_ns=(0, 2 * 10**9), latency_ns=(2 * 10**9, 10**9)).sustained] == [0, 2]


def test_energy_is_mean_power_times_the_time_from_image_to_image() -> None:
    assert run().energy_uj == {}
    powers: tuple[dict[str, float] | None, ...] = ({"ina226": 3.0}, None, {"ina226": 5.0, "late": 1.0})
    course = tuple(
        BoardMoment(at_ns=second, frequency_hz=None, temperature_c=None, power_w=power)
        for second, power in enumerate(powers)
    )
    # Half a second from sample to sample, of which each stands for ten images: 4 W times 50 ms.
    assert run(course=course, kept_one_run_in=10).energy_uj == pytest.approx({"ina226": 200_000, "late": 50_000})
    assert run(course=course, start_ns=(7,), latency_ns=(10**10,)).energy_uj == {}


def test_a_single_run_is_a_measurement() -> None:
    one = run(start_ns=(7,), latency_ns=(10**10,), course=())
    assert (one.median_us, one.sustained_us, one.first_us) == (1e7, 1e7, 1e7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_ns": (), "start_ns": ()}, "latency_ns must hold at least one time"),
        ({"latency_ns": (-1,), "start_ns": (0,)}, "latency_ns must hold at least one time"),
        ({"start_ns": (0,)}, "start_ns must rise, and hold one time for each sample"),
        ({"start_ns": (2, 1), "latency_ns": (1, 1)}, "start_ns must rise"),
        ({"start_ns": (-1,), "latency_ns": (1,)}, "start_ns must not be negative"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_what_is_no_measurement(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_a_quiet_board_leaves_no_doubt() -> None:
    steady = run(latency_ns=(1_000_000,) * 12)
    assert doubts(steady) == ()
    unknown = BoardState(
        governor=None,
        frequency_hz=None,
        highest_frequency_hz=None,
        temperature_c=None,
        throttled=None,
        load_average=None,
    )
    assert doubts(replace(steady, before=unknown, after=unknown)) == ()


def test_doubts() -> None:
    assert doubts(run()) == ("it became 30 % slower: 1,000 µs at first, 1,300 µs at last",)
    steady = run(latency_ns=(1_000_000,) * 12)

    def after(**flags: bool) -> BoardState:
        return replace(STATE, throttled=replace(QUIET, **flags))

    assert doubts(replace(steady, after=after(under_voltage=True, under_voltage_since_boot=True))) == (
        "the supply was too weak after the measurement (under-voltage)",
        "the supply was too weak during the measurement (under-voltage)",
    )
    assert doubts(replace(steady, before=after(throttled=True))) == (
        "the firmware held the clock back before the measurement",
    )
    # An old flag is none of this measurement's.
    old = after(under_voltage_since_boot=True)
    assert doubts(replace(steady, before=old, after=old)) == ()
    busy = replace(STATE, governor="ondemand", load_average=3.0)
    assert doubts(replace(steady, before=busy, after=busy)) == (
        "the clock's governor is ondemand, so the clock may have changed",
        "the board was busy before: 3.0 tasks for 4 cores",
    )
