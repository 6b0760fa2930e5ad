"""The mathematics of learning rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.spec.recipe import TrainSpec
from emb.train.schedules import cosine, learning_rate


@st.composite
def trainings(draw):
    epochs = draw(st.integers(1, 12))
    spec = TrainSpec(
        epochs=epochs,
        warmup_epochs=draw(st.integers(0, epochs)),
        learning_rate=draw(st.floats(1e-6, 10)),
        schedule=draw(st.sampled_from(["constant", "cosine"])),
    )
    return spec, draw(st.integers(1, 30))


def _rates(spec, steps_per_epoch):
    return [learning_rate(spec, step, steps_per_epoch=steps_per_epoch) for step in range(spec.epochs * steps_per_epoch)]


@given(trainings())
def test_every_rate_is_positive_and_at_most_the_recipes(training):
    spec, steps_per_epoch = training
    rates = _rates(spec, steps_per_epoch)
    assert min(rates) > 0
    assert max(rates) <= spec.learning_rate


@given(trainings())
def test_rises_in_the_warmup_and_never_after_it(training):
    spec, steps_per_epoch = training
    rates = _rates(spec, steps_per_epoch)
    warm = spec.warmup_epochs * steps_per_epoch
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    if warm:
        assert rates[warm - 1] == pytest.approx(spec.learning_rate)
        assert rates[0] == pytest.approx(spec.learning_rate / warm)
    if warm < len(rates):
        assert rates[warm] == spec.learning_rate


@given(st.integers(1, 12), st.integers(1, 30), st.floats(1e-6, 10))
def test_constant_is_constant(epochs, steps_per_epoch, rate):
    spec = TrainSpec(epochs=epochs, schedule="constant", learning_rate=rate)
    assert set(_rates(spec, steps_per_epoch)) == {rate}


@given(st.floats(0, 1))
def test_cosine_is_symmetric_about_one_half(fraction):
    assert cosine(fraction) + cosine(1 - fraction) == pytest.approx(1)


def test_cosine_at_its_marks():
    assert [cosine(fraction) for fraction in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])


def test_warmup_longer_than_the_training_is_cut():
    spec = TrainSpec(epochs=1, warmup_epochs=3, learning_rate=1.0)
    assert _rates(spec, 4) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("step", [-1, 20])
def test_step_outside_the_training(step):
    with pytest.raises(ValueError, match=f"step {step} is not one of 20 steps"):
        learning_rate(TrainSpec(epochs=2), step, steps_per_epoch=10)
