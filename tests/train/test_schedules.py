"""The mathematics of learning rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.spec.recipe import TrainSpec
from emb.train.schedules import best_epoch, cosine, is_over, learning_rate, plateaus


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


def _epoch_rates(spec, *, accuracies=()):
    return [learning_rate(spec, 2 * epoch, steps_per_epoch=2, accuracies=accuracies) for epoch in range(spec.epochs)]


def test_step_of_googlenet():
    spec = TrainSpec(epochs=20, schedule="step", learning_rate=1.0, decay_factor=0.96, decay_epochs=8)
    assert _epoch_rates(spec) == pytest.approx([1.0] * 8 + [0.96] * 8 + [0.96**2] * 4)


def test_warmup_of_resnet_is_constant_and_the_schedule_counts_from_its_end():
    spec = TrainSpec(
        epochs=6, schedule="step", learning_rate=0.1, decay_epochs=2, warmup_epochs=1, warmup_learning_rate=0.01
    )
    assert _epoch_rates(spec) == pytest.approx([0.01, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert learning_rate(spec, 1, steps_per_epoch=2) == 0.01


def test_frozen_epochs_come_first_at_their_own_rate():
    spec = TrainSpec(
        epochs=6, schedule="cosine", learning_rate=0.1, warmup_epochs=2, freeze_epochs=2, freeze_learning_rate=0.5
    )
    rates = _rates(spec, 2)
    assert rates[:4] == [0.5] * 4
    assert rates[4:8] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[8] == 0.1
    rest = TrainSpec(epochs=4, schedule="cosine", learning_rate=0.1, warmup_epochs=2)
    assert rates[4:] == pytest.approx(_rates(rest, 2))


def test_freezing_longer_than_the_training_is_cut():
    assert set(_rates(TrainSpec(epochs=2, freeze_epochs=9, freeze_learning_rate=0.5), 3)) == {0.5}


def test_plateau_falls_whenever_the_best_accuracy_is_too_long_ago():
    spec = TrainSpec(epochs=9, schedule="plateau", learning_rate=1.0, decay_factor=0.5, patience_epochs=2)
    accuracies = (0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.2, 0.3, 0.4)
    assert _epoch_rates(spec, accuracies=accuracies) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_does_not_look_at_the_warmup():
    spec = TrainSpec(epochs=5, schedule="plateau", learning_rate=1.0, patience_epochs=1, warmup_epochs=2)
    assert _epoch_rates(spec, accuracies=(0.9, 0.8, 0.1, 0.2, 0.1))[2:] == [1, 1, 1]


accuracies_of = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12)


@given(accuracies_of, st.integers(1, 4))
def test_plateaus_never_become_fewer_and_need_patience(accuracies, patience):
    counts = [plateaus(accuracies[:end], patience_epochs=patience) for end in range(len(accuracies) + 1)]
    assert counts == sorted(counts)
    assert counts[-1] <= max(len(accuracies) - 1, 0) // patience
    assert plateaus(sorted(set(accuracies)), patience_epochs=patience) == 0


@given(accuracies_of, st.integers(0, 4), st.integers(0, 3))
def test_a_training_is_over_when_its_epochs_are_or_the_wait_is(accuracies, wait, frozen):
    spec = TrainSpec(epochs=12, early_stopping_epochs=wait, freeze_epochs=frozen)
    over = is_over(spec, accuracies)
    if len(accuracies) == 12:
        assert over
    elif over:
        last = accuracies[-wait:]
        assert wait
        assert len(accuracies) >= frozen + wait
        assert max(last) <= max(accuracies[:-wait], default=1)
    elif wait and len(accuracies) > frozen + wait:
        assert max(accuracies[-wait:]) > max(accuracies[:-wait])


def test_the_first_of_equal_epochs_is_the_best():
    assert best_epoch([0.2, 0.7, 0.7, 0.3]) == 1
