"""One row's figures of its rounds: interval, percentiles, noise; the energy counters as Linux lays them out."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.bench.energy import Counters, counters
from emb.bench.rounds import (
    LEAST_ROUNDS,
    cold_start_us_of,
    energy_uj_of,
    noise,
    peak_memory_bytes_of,
    summary_of,
)
from emb.bench.statistics import percentile
from emb.spec.latency import LatencySummary, Round


def one_round(
    *samples_ns: int, cold_start_ns: int = 1_000, peak_memory_bytes: int | None = 1, energy_uj: float | None = None
) -> Round:
    return Round(
        samples_ns=samples_ns,
        cold_start_ns=cold_start_ns,
        peak_memory_bytes=peak_memory_bytes,
        energy_uj=energy_uj,
    )


TIMES_NS = st.integers(1, 10**10)
ROUNDS = st.lists(st.lists(TIMES_NS, min_size=1, max_size=5).map(lambda times: one_round(*times)), min_size=1)


@given(rounds=ROUNDS)
def test_the_interval_encloses_the_median_and_both_are_of_rounds(rounds: list[Round]) -> None:
    summary = summary_of(rounds, threads=2, virtual=True)
    medians = summary.round_medians_us
    assert len(medians) == len(rounds)
    assert min(medians) <= summary.median_us <= max(medians)
    if len(rounds) < LEAST_ROUNDS:
        assert summary.low_us is None
        assert summary.high_us is None
    else:
        assert summary.low_us is not None
        assert summary.high_us is not None
        # At least 1 % to either side, and beyond that no further than the rounds themselves.
        assert summary.low_us <= 0.99 * summary.median_us
        assert summary.high_us >= 1.01 * summary.median_us
        assert summary.low_us >= min(*medians, 0.99 * summary.median_us)
        assert summary.high_us <= max(*medians, 1.01 * summary.median_us)


@given(rounds=ROUNDS)
def test_percentiles_are_of_all_runs_and_every_round_counts_alike(rounds: list[Round]) -> None:
    summary = summary_of(rounds, threads=1, virtual=False)
    samples_us = sorted(sample / 1000 for one in rounds for sample in one.samples_ns)
    assert summary.runs == len(samples_us)
    assert summary.p90_us in samples_us
    shares = [
        Fraction(sum(time / 1000 <= summary.p90_us for time in one.samples_ns), len(one.samples_ns)) for one in rounds
    ]
    assert sum(shares) / len(rounds) >= Fraction(9, 10)
    assert summary.median_us <= summary.p90_us * (1 + 1e-12) or len(rounds) < 3
    assert (summary.p99_us is None) == (len(samples_us) < 100)


@given(times=st.lists(TIMES_NS, min_size=1, max_size=300))
def test_rounds_of_equal_length_have_the_percentile_of_their_runs(times: list[int]) -> None:
    rounds = [one_round(*times), one_round(*times)]
    summary = summary_of(rounds, threads=1, virtual=False)
    assert summary.p90_us == percentile(times * 2, 90) / 1000
    if summary.p99_us is not None:
        assert summary.p99_us == percentile(times * 2, 99) / 1000


def test_a_fast_round_of_many_runs_hides_no_slow_ones() -> None:
    slow = [one_round(*[50_000_000] * 3)] * 5
    summary = summary_of([*slow, *[one_round(*[20_000] * 5_000)] * 4], threads=1, virtual=False)
    assert summary.median_us == summary.p90_us == summary.p99_us == 50_000


def test_a_long_round_counts_no_more_than_a_short_one() -> None:
    rounds = [one_round(*[100_000] * 1_000), one_round(200_000), one_round(200_000)]
    assert summary_of(rounds, threads=1, virtual=False).median_us == 200


@given(rounds=ROUNDS)
def test_a_summary_goes_through_json(rounds: list[Round]) -> None:
    summary = summary_of(rounds, threads=1, virtual=False)
    assert LatencySummary.from_json(summary.to_json()) == summary


def test_a_summary_of_an_older_report_knows_no_rounds() -> None:
    summary = LatencySummary.from_json({"median": 17.0, "p90": 19.0, "runs": 900, "threads": 1})
    assert summary == LatencySummary(median_us=17.0, p90_us=19.0, runs=900, threads=1)


@pytest.mark.parametrize("samples_ns", [(), (5, -1)])
def test_impossible_times(samples_ns: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="samples_ns must hold at least one time, none of them negative"):
        one_round(*samples_ns)


@pytest.mark.parametrize(
    ("figures", "reasons"),
    [
        ({"low_us": 98.0, "high_us": 103.0, "p90_us": 125.0}, ()),
        ({"low_us": None, "high_us": None, "p90_us": 101.0}, ()),
        ({"low_us": 98.0, "high_us": 104.0, "p90_us": 101.0}, ("the interval is 6 % of the median wide",)),
        ({"low_us": 99.0, "high_us": 101.0, "p90_us": 130.0}, ("one run in ten took 1.3 times the median or longer",)),
        (
            {"low_us": 50.0, "high_us": 150.0, "p90_us": 890.0},
            ("the interval is 100 % of the median wide", "one run in ten took 8.9 times the median or longer"),
        ),
    ],
)
def test_a_row_says_itself_that_it_is_noisy(figures: dict[str, float | None], reasons: tuple[str, ...]) -> None:
    assert noise(median_us=100.0, handed_over=False, **figures) == reasons


@pytest.mark.parametrize(
    ("time_ns", "threads", "virtual", "is_noisy"),
    [
        (999_000, 2, True, True),
        (1_000_000, 2, True, False),
        (999_000, 1, True, False),
        (999_000, 2, False, False),
    ],
)
def test_threads_on_cores_that_a_host_moves(time_ns: int, threads: int, virtual: bool, is_noisy: bool) -> None:
    """What the rounds cannot show, as they may all meet the same cores."""
    found = summary_of([one_round(time_ns)] * 10, threads=threads, virtual=virtual).noise
    assert len(found) == is_noisy
    assert all("virtual machine" in reason for reason in found)


def test_noise_of_made_up_rounds() -> None:
    quiet = [one_round(*[place + 1_000] * 20) for place in range(10)]
    assert summary_of(quiet, threads=1, virtual=False).noise == ()
    disturbed = quiet[:4] + [one_round(*[2_000 + 100 * place] * 20) for place in range(6)]
    assert len(summary_of(disturbed, threads=1, virtual=False).noise) == 1
    assert len(summary_of([one_round(*[1_000] * 8, *[9_000] * 2)] * 10, threads=1, virtual=False).noise) == 1


def test_cold_start_memory_and_energy_of_rounds() -> None:
    rounds = [
        one_round(1, 2, cold_start_ns=5_000, peak_memory_bytes=7, energy_uj=10.0),
        one_round(1, cold_start_ns=9_000, peak_memory_bytes=9, energy_uj=2.0),
        one_round(1, cold_start_ns=6_000, peak_memory_bytes=8, energy_uj=4.0),
    ]
    assert (cold_start_us_of(rounds), peak_memory_bytes_of(rounds), energy_uj_of(rounds)) == (6.0, 9, 4.0)
    unknown = [*rounds, one_round(1, peak_memory_bytes=None, energy_uj=None)]
    assert (peak_memory_bytes_of(unknown), energy_uj_of(unknown)) == (None, None)


def zone(root: Path, number: str, *, name: str, energy_uj: str = "0", range_uj: str = "1000") -> Path:
    """As Linux lays one out: kernel documentation, power/powercap/powercap.rst."""
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (folder / file).write_text(f"{text}\n")
    return folder


@given(
    start=st.lists(st.integers(0, 1_000), min_size=1, max_size=4),
    spent=st.lists(st.integers(0, 1_000), min_size=4, max_size=4),
)
def test_what_was_spent_survives_a_turn_of_the_counter(
    start: list[int], spent: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("powercap")
    (root / "intel-rapl").mkdir()  # the control type itself, which is no zone
    for place, value in enumerate(start):
        zone(root, str(place), name=f"package-{place}", energy_uj=str(value))
        zone(root, f"{place}:0", name="core", energy_uj="5")
    zone(root, "9", name="psys", energy_uj="5")
    found = counters(root)
    before = found.read_uj()
    for place, value in enumerate(start):
        now = value + spent[place]
        (root / f"intel-rapl:{place}" / "energy_uj").write_text(str(now if now <= 1_000 else now - 1_000))
    # A counter that went round exactly once shows what it showed before.
    expected = sum(one if one < 1_000 or begin == 0 else 0 for begin, one in zip(start, spent, strict=False))
    assert found.spent_uj(before, found.read_uj()) == expected


def test_a_machine_without_counters(tmp_path: Path) -> None:
    found = counters(tmp_path / "powercap")
    assert found == Counters(absence="the machine exposes no RAPL counter")
    assert found.read_uj() == ()
    assert found.spent_uj((), ()) is None


def test_counters_that_cannot_be_read(tmp_path: Path) -> None:
    zone(tmp_path, "0", name="package-0", energy_uj="lots")
    assert counters(tmp_path).absence == (
        "intel-rapl:0 of the machine's RAPL counters cannot be read (no number in it)"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_counters_for_root_alone(tmp_path: Path) -> None:
    (zone(tmp_path, "0", name="package-0") / "energy_uj").chmod(0)
    absence = "intel-rapl:0 of the machine's RAPL counters cannot be read (permission denied)"
    assert counters(tmp_path) == Counters(absence=absence)


def test_a_counter_that_is_gone(tmp_path: Path) -> None:
    (zone(tmp_path, "0", name="package-0") / "energy_uj").unlink()
    absence = "intel-rapl:0 of the machine's RAPL counters cannot be read (no such file or directory)"
    assert counters(tmp_path) == Counters(absence=absence)
