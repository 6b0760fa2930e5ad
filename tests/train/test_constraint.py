"""Weights that keep a form while they are trained: with means, in half precision, and after an interruption."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from emb.prune.cluster import shared
from emb.prune.magnitude import zeros
from emb.spec.pruning import goal_of
from emb.spec.recipe import TrainSpec
from emb.train import train

_loader = importlib.util.spec_from_file_location("quadrant", Path(__file__).with_name("_bright_quadrant.py"))
problem = importlib.util.module_from_spec(_loader)
_loader.loader.exec_module(problem)

SPEC = TrainSpec(epochs=3, batch_size=32, learning_rate=5e-3, weight_decay=1e-2, seed=7)
SPECS = {
    "plain": SPEC,
    "means": dataclasses.replace(SPEC, ema_momentum=0.9),
    "float16": dataclasses.replace(SPEC, ema_momentum=0.9, precision="mixed_float16", optimizer="sgd"),
}


def half_zero(model):
    return zeros(model, goal=goal_of("magnitude", "0.5"))


def four_values(model):
    return shared(model, count=4)


def run(directory, spec, *, constraint, progress=lambda progress: None):
    model = problem.model()
    done = train(
        model,
        train=problem.TRAIN,
        validation=problem.VALIDATION,
        spec=spec,
        directory=directory,
        progress=progress,
        constraint=constraint(model),
    )
    return model, done.history


def kernels(model):
    return [np.array(variable) for variable in model.variables if variable.path.endswith("/kernel")]


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_as_many_zeros_as_asked_for_and_it_learns(spec, tmp_path):
    model, history = run(tmp_path, spec, constraint=half_zero)
    weights = np.concatenate([kernel.ravel() for kernel in kernels(model)])
    assert np.count_nonzero(weights == 0) == round(0.5 * weights.size)
    assert history.epochs[-1].loss < history.epochs[0].loss
    scores = np.asarray(model(problem.VALIDATION.images.astype(np.float32), training=False))
    if spec.precision == "float32":
        assert history.epochs[-1].validation_accuracy == np.mean(scores.argmax(axis=1) == problem.VALIDATION.labels)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_as_few_values_as_asked_for_and_it_learns(spec, tmp_path):
    model, history = run(tmp_path, spec, constraint=four_values)
    for kernel in kernels(model):
        ratios = kernel / np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
        assert len(np.unique(ratios.round(5))) <= 4
    assert history.epochs[-1].loss < history.epochs[0].loss


@pytest.mark.slow
def test_the_values_themselves_are_trained(tmp_path):
    model, _ = run(tmp_path, SPEC, constraint=four_values)
    start, _ = run(tmp_path / "start", dataclasses.replace(SPEC, epochs=1, learning_rate=1e-9), constraint=four_values)
    for kernel, before in zip(kernels(model), kernels(start), strict=True):
        ratios = [
            np.unique((one / np.abs(one).reshape(-1, one.shape[-1]).max(axis=0)).round(5)) for one in (kernel, before)
        ]
        assert not np.array_equal(*ratios)


@pytest.mark.slow
@pytest.mark.parametrize("constraint", [half_zero, four_values])
def test_an_interrupted_training_ends_with_the_same_bits(constraint, tmp_path):
    def interrupt(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    spec = SPECS["means"]
    whole, _ = run(tmp_path / "whole", spec, constraint=constraint)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", spec, constraint=constraint, progress=interrupt)
    told = []
    resumed, _ = run(tmp_path / "parts", spec, constraint=constraint, progress=told.append)
    assert min(progress.epoch for progress in told) == 2
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_checkpoint_of_another_form_is_not_used(tmp_path):
    run(tmp_path, SPEC, constraint=half_zero)
    told = []
    run(tmp_path, SPEC, constraint=four_values, progress=told.append)
    assert told[0].epoch == 1
