"""The Wilson interval against published values, McNemar's test and the bootstrap against SciPy, their properties."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.bench import bootstrap_median, mcnemar, median, percentile, wilson

COUNTS = st.integers(1, 100_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
SAMPLES = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(counts=COUNTS, confidence=st.floats(0.01, 0.9999))
def test_ends_solve_the_score_equation(counts: tuple[int, int], confidence: float) -> None:
    """An end p is where the observed share lies z standard errors of p away."""
    correct, total = counts
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    for end in wilson(correct, total, confidence):
        distance = (correct / total - end) ** 2
        assert distance == pytest.approx(z * z * end * (1 - end) / total, rel=1e-6, abs=1e-12)


@given(counts=COUNTS)
def test_encloses_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    mirrored_low, mirrored_high = wilson(total - correct, total)
    assert (mirrored_low, mirrored_high) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))
    wide_low, wide_high = wilson(correct, total, 0.99)
    assert wide_low <= low
    assert high <= wide_high


@pytest.mark.parametrize(("correct", "total", "confidence"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_impossible_counts(correct: int, total: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="must"):
        wilson(correct, total, confidence)


@given(samples=SAMPLES)
def test_median_is_the_standard_one(samples: list[int]) -> None:
    assert median(samples) == statistics.median(samples)


@given(samples=SAMPLES, percent=st.integers(1, 100))
def test_percentile_is_the_least_sample_that_covers(samples: list[int], percent: int) -> None:
    value = percentile(samples, percent)
    needed = math.ceil(percent * len(samples) / 100)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= needed
    assert sum(sample < value for sample in samples) < needed


def test_percentiles_by_hand() -> None:
    assert [percentile(range(1, 101), percent) for percent in (1, 7, 50, 90, 100)] == [1, 7, 50, 90, 100]
    assert percentile([15, 20, 35, 40, 50], 40) == 20
    assert percentile([3], 90) == 3


@pytest.mark.parametrize("percent", [0, 101, -1])
def test_impossible_percentiles(percent: float) -> None:
    with pytest.raises(ValueError, match="percent must lie"):
        percentile([1], percent)


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        percentile([], 50)
    with pytest.raises(ValueError, match="at least one sample"):
        median([])


@given(first=st.integers(0, 400), second=st.integers(0, 400))
def test_mcnemar_is_a_fair_coin_s_test(first: int, second: int) -> None:
    expected = 1.0 if first + second == 0 else scipy.stats.binomtest(first, first + second, 0.5).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_no_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


def test_the_bootstrap_interval_is_scipy_s() -> None:
    values = np.random.default_rng(3).lognormal(0, 0.1, 24)
    expected = scipy.stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap_median(values) == (pytest.approx(expected.low, rel=5e-3), pytest.approx(expected.high, rel=5e-3))


@given(values=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=30))
@settings(max_examples=25)
def test_the_bootstrap_interval_lies_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_median(values)
    assert min(values) <= low <= high <= max(values)
    assert bootstrap_median(values) == (low, high)
    wider = bootstrap_median(values, confidence=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


def test_the_bootstrap_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (bootstrap_median(rng.normal(size=24)) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(("values", "confidence"), [((), 0.95), ((1.0,), 1.0)])
def test_no_bootstrap_of_nothing(values: tuple[float, ...], confidence: float) -> None:
    with pytest.raises(ValueError, match="must"):
        bootstrap_median(values, confidence=confidence)
