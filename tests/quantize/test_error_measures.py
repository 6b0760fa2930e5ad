"""SQNR, cosine and clipped share: what is known of them beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emb.quantize._error import ErrorSums

VALUES = arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32))
# Times a power of two they are exact in float32: none becomes 0 or infinite.
EXACT = arrays(np.float32, (6, 3), elements=st.integers(-6400, 6400).map(lambda number: number / 64))


@given(bits=st.integers(4, 10), seed=st.integers(0, 2**32 - 1))
def test_uniform_values_have_six_decibels_a_bit(bits, seed):
    """Rounding noise is uniform over one step: signal / noise = (range^2 / 12) / (step^2 / 12) = 4^bits."""
    values = np.random.default_rng(seed).uniform(-1, 1, (50_000, 1)).astype(np.float32)
    step = 2 / 2**bits
    rounded = (np.floor(values / step) + 0.5) * step
    assert ErrorSums.of(values, rounded).sqnr_db == pytest.approx(10 * math.log10(4**bits), abs=0.2)


@given(real=EXACT, given_values=EXACT, scale=st.sampled_from([2.0**-10, 0.5, 4.0, 2.0**10]))
def test_a_common_scale_changes_nothing(real, given_values, scale):
    one = ErrorSums.of(real, given_values)
    other = ErrorSums.of(real * np.float32(scale), given_values * np.float32(scale))
    assert other.sqnr_db == pytest.approx(one.sqnr_db, abs=1e-9)
    assert other.channel_sqnr_db == pytest.approx(one.channel_sqnr_db, abs=1e-9)
    assert other.cosine == pytest.approx(one.cosine, abs=1e-12)


@given(real=VALUES, given_values=VALUES)
def test_cosine_is_bounded_and_symmetric(real, given_values):
    cosine = ErrorSums.of(real, given_values).cosine
    assert -1 <= cosine <= 1
    assert ErrorSums.of(given_values, real).cosine == pytest.approx(cosine)
    assert ErrorSums.of(real, real).cosine == pytest.approx(1)
    assert ErrorSums.of(real, real).sqnr_db == math.inf


@given(real=VALUES, given_values=VALUES)
def test_sums_of_parts_are_those_of_the_whole(real, given_values):
    whole = ErrorSums.of(real, given_values, lowest=-10, highest=10)
    parts = ErrorSums.of(real[:2], given_values[:2], lowest=-10, highest=10) + ErrorSums.of(
        real[2:], given_values[2:], lowest=-10, highest=10
    )
    np.testing.assert_allclose(parts.noise, whole.noise)
    assert parts.clipped_share == whole.clipped_share == np.mean(np.abs(real) > 10)


def test_one_loud_channel_hides_the_others_from_the_sqnr_alone():
    rng = np.random.default_rng(0)
    real = rng.normal(0, [1000.0, 1.0, 1.0], (500, 3)).astype(np.float32)
    step = 8.0  # what 8 bits leave a range of 2,000
    error = ErrorSums.of(real, np.round(real / step) * step)
    assert error.sqnr_db > 40
    assert error.channel_sqnr_db < 1


def test_no_signal_is_told_from_no_noise():
    nothing = np.zeros((4, 2), np.float32)
    assert ErrorSums.of(nothing, nothing).channel_sqnr_db == math.inf
    assert ErrorSums.of(nothing, nothing).cosine == 1
    assert ErrorSums.of(nothing, nothing + 1).sqnr_db == -math.inf
    assert ErrorSums.of(nothing, nothing + 1).cosine == 0
