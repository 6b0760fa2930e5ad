"""The loop: it learns, repeats itself to the bit, goes on where it was killed, and refuses what cannot work."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emb.errors import DataError, ModelError, SpecError, StoreError
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.recipe import Augmentation
from emb.train import History, train
from emb.train.checkpoint import FILE_NAME

_PROBLEM = Path(__file__).with_name("_bright_quadrant.py")
_loader = importlib.util.spec_from_file_location("bright_quadrant", _PROBLEM)
problem = importlib.util.module_from_spec(_loader)
_loader.loader.exec_module(problem)


def _silent(progress):
    del progress


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(model, history, progress reports) of one whole training."""
    told = []
    trained, history = problem.run(tmp_path_factory.mktemp("whole"), progress=told.append)
    return trained, history, told


def _assert_same(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_learns(uninterrupted):
    _, history, _ = uninterrupted
    assert len(history.epochs) == problem.SPEC.epochs
    assert history.epochs[-1].validation_accuracy > 0.95
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert history.kept_epoch == problem.SPEC.epochs


def test_reported_validation_accuracy_is_that_of_the_last_weights(uninterrupted):
    model, history, _ = uninterrupted
    scores = np.asarray(model(problem.VALIDATION.images.astype(np.float32), training=False))
    accuracy = np.mean(scores.argmax(axis=1) == problem.VALIDATION.labels)
    assert history.epochs[-1].validation_accuracy == accuracy


def test_model_stays_uncompiled(uninterrupted):
    assert not uninterrupted[0].compiled


def test_history_goes_through_json(uninterrupted):
    history = uninterrupted[1]
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history


def test_progress_tells_every_epochs_end(uninterrupted):
    _, history, told = uninterrupted
    ends = [progress for progress in told if progress.validation_accuracy is not None]
    assert [progress.epoch for progress in ends] == [1, 2, 3, 4]
    assert all(progress.step == progress.steps == 400 // 32 for progress in ends)
    assert [progress.validation_accuracy for progress in ends] == [
        epoch.validation_accuracy for epoch in history.epochs
    ]
    assert [progress.loss for progress in ends] == [epoch.loss for epoch in history.epochs]
    assert [progress.learning_rate for progress in ends] == [epoch.learning_rate for epoch in history.epochs]
    assert ends[-1].seconds_left == 0
    assert all(progress.seconds_left >= 0 for progress in told)


def test_learning_rates_in_the_history(uninterrupted):
    rates = [epoch.learning_rate for epoch in uninterrupted[1].epochs]
    assert rates[0] == problem.SPEC.learning_rate
    assert rates == sorted(rates, reverse=True)


def test_same_seed_same_weights_to_the_bit(uninterrupted, tmp_path):
    again, history = problem.run(tmp_path)
    _assert_same(again, uninterrupted[0])
    assert [epoch.loss for epoch in history.epochs] == [epoch.loss for epoch in uninterrupted[1].epochs]


@pytest.mark.slow
def test_other_seed_other_weights(uninterrupted, tmp_path):
    other, _ = problem.run(tmp_path, spec=dataclasses.replace(problem.SPEC, seed=8))
    assert not np.array_equal(other.get_weights()[0], uninterrupted[0].get_weights()[0])


@pytest.mark.slow
def test_killed_training_continues_with_the_same_weights(uninterrupted, tmp_path):
    checkpoint = tmp_path / FILE_NAME
    process = subprocess.Popen([sys.executable, str(_PROBLEM), str(tmp_path)], env=os.environ.copy())
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists():
            assert process.poll() is None, "the training ended without a checkpoint"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    told = []
    resumed, history = problem.run(tmp_path, progress=told.append)
    assert min((progress.epoch for progress in told), default=5) > 1
    assert len(history.epochs) == problem.SPEC.epochs
    assert [epoch.loss for epoch in history.epochs] == [epoch.loss for epoch in uninterrupted[1].epochs]
    _assert_same(resumed, uninterrupted[0])


@pytest.mark.slow
def test_stopped_in_the_middle_of_an_epoch_continues_with_the_same_weights(uninterrupted, tmp_path):
    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.run(tmp_path, progress=interrupt)
    told = []
    resumed, _ = problem.run(tmp_path, progress=told.append)
    assert {progress.epoch for progress in told} <= {3, 4}
    _assert_same(resumed, uninterrupted[0])


@pytest.mark.slow
def test_finished_training_is_not_repeated(uninterrupted, tmp_path):
    problem.run(tmp_path)
    told = []
    again, _ = problem.run(tmp_path, progress=told.append)
    assert told == []
    _assert_same(again, uninterrupted[0])


@pytest.mark.slow
def test_checkpoint_of_another_training_is_not_used(tmp_path):
    problem.run(tmp_path, spec=dataclasses.replace(problem.SPEC, epochs=1, warmup_epochs=0))
    told = []
    problem.run(tmp_path, spec=dataclasses.replace(problem.SPEC, epochs=2), progress=told.append)
    assert [progress.epoch for progress in told if progress.validation_accuracy is not None] == [1, 2]


def test_no_epochs_leave_the_model_as_it_is(tmp_path):
    model = problem.model()
    before = model.get_weights()
    _, history = problem.run(tmp_path, spec=dataclasses.replace(problem.SPEC, epochs=0), trained=model)
    assert history == History()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == []


def test_sgd_with_momentum_learns(tmp_path):
    spec = dataclasses.replace(
        problem.SPEC, optimizer="sgd", learning_rate=0.05, schedule="constant", augment=Augmentation()
    )
    _, history = problem.run(tmp_path, spec=spec)
    assert history.epochs[-1].validation_accuracy > 0.95
    assert {epoch.learning_rate for epoch in history.epochs} == {0.05}


def test_fewer_images_than_a_batch(tmp_path):
    few = Split(images=problem.TRAIN.images[:10], labels=problem.TRAIN.labels[:10])
    trained = train(
        problem.model(),
        train=few,
        validation=problem.VALIDATION,
        spec=dataclasses.replace(problem.SPEC, epochs=1),
        directory=tmp_path,
        progress=_silent,
    )
    assert len(trained.history.epochs) == 1


def test_pixels_of_another_range(uninterrupted, tmp_path):
    import keras

    inner = problem.model()
    # The same network without its rescaling, trained on what the rescaling would have made.
    inputs = keras.Input((12, 12, 1), name="pixels")
    x = inputs
    for layer in inner.layers[1:]:
        x = layer(x)
    trained = train(
        keras.Model(inputs, x),
        train=problem.TRAIN,
        validation=problem.VALIDATION,
        spec=problem.SPEC,
        directory=tmp_path,
        progress=_silent,
        pixels=Pixels(scale=1 / 255),
    )
    whole = uninterrupted[1]
    assert trained.history.epochs[0].loss == pytest.approx(whole.epochs[0].loss, rel=1e-3)


def test_divergence(tmp_path):
    spec = dataclasses.replace(problem.SPEC, optimizer="sgd", learning_rate=1e30, schedule="constant", warmup_epochs=0)
    with pytest.raises(SpecError) as caught:
        problem.run(tmp_path, spec=spec)
    what, why, fix = str(caught.value).split("\n")
    assert what.startswith("the training diverged: the loss is nan in epoch 1, step ")
    assert why == "  why: the learning rate of 1e+30 is too high for this model and these images"
    assert fix == "  fix: lower it, e.g. --set train.learning_rate=1e+29, or set train.warmup_epochs"


def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        problem.run(tmp_path / "file" / "state")
    assert str(caught.value) == (
        f"the training's state cannot be written to {tmp_path}/file/state\n"
        "  why: not a directory\n"
        "  fix: free some disk space or choose a directory that can be written, then run it again"
    )


def _refused(model, *, images=problem.TRAIN, kind=ModelError):
    with pytest.raises(kind) as caught:
        train(
            model,
            train=images,
            validation=problem.VALIDATION,
            spec=problem.SPEC,
            directory=Path("never-made"),
            progress=_silent,
        )
    return str(caught.value)


def test_empty_split():
    nothing = Split(images=problem.TRAIN.images[:0], labels=problem.TRAIN.labels[:0])
    assert _refused(problem.model(), images=nothing, kind=DataError) == (
        "the train split is empty\n  fix: give more images, or another data.validation_fraction"
    )


def test_images_of_another_shape():
    wide = Split(images=np.zeros((8, 12, 14, 1), np.uint8), labels=problem.TRAIN.labels[:8])
    assert _refused(problem.model(), images=wide) == (
        "the model takes inputs of shape (12, 12, 1); the images have (12, 14, 1)\n"
        "  fix: set input.shape to the model's height, width and channels"
    )


def test_more_classes_than_outputs():
    five = Split(images=problem.TRAIN.images[:8], labels=np.array([0, 1, 2, 3, 4, 0, 1, 2]))
    assert _refused(problem.model(), images=five) == (
        "the model's output has shape (4,); the labels need 5 classes\n"
        "  fix: give the model whose classes are those of the data set"
    )


def test_output_that_is_no_probability():
    import keras

    inputs = keras.Input((12, 12, 1))
    model = keras.Model(inputs, keras.layers.Dense(4, bias_initializer="ones")(keras.layers.Flatten()(inputs)))
    message = _refused(model)
    assert message.startswith("the model's output is not a probability for each class\n")
    assert message.endswith("  fix: let the model end in a softmax")
