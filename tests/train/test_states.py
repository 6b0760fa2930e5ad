"""What a training carries from epoch to epoch besides weights: means, plateaus, frozen layers, best epochs, norms."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from emb.spec.dataset import Split
from emb.spec.recipe import Augmentation, TrainSpec
from emb.train import GradientNorms, train, without_auxiliaries

_loader = importlib.util.spec_from_file_location("quadrant", Path(__file__).with_name("_bright_quadrant.py"))
problem = importlib.util.module_from_spec(_loader)
_loader.loader.exec_module(problem)

PLAIN = TrainSpec(epochs=2, batch_size=32, learning_rate=5e-3, schedule="constant", seed=7)
TINY = Split(images=problem.TRAIN.images[:96], labels=problem.TRAIN.labels[:96])
NAMES = tuple(
    f"{layer}/{name}"
    for layer, name in itertools.chain(
        itertools.product(["conv1"], ["kernel", "bias"]),
        itertools.product(["normal1"], ["gamma", "beta"]),
        itertools.product(["scores"], ["kernel", "bias"]),
    )
)


def _run(directory, spec, *, model=None, progress=lambda progress: None, gradients=False, data=TINY):
    model = model or problem.model()
    trained = train(
        model,
        train=data,
        validation=problem.VALIDATION,
        spec=spec,
        directory=directory,
        progress=progress,
        gradients=gradients,
    )
    return model, trained


def _accuracy(model):
    scores = np.asarray(model(problem.VALIDATION.images.astype(np.float32), training=False))
    return np.mean(scores.argmax(axis=1) == problem.VALIDATION.labels)


def _without_seconds(history):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history.epochs]


STATES = {
    "plateau, mean and best epoch": dataclasses.replace(
        PLAIN,
        epochs=5,
        schedule="plateau",
        patience_epochs=1,
        ema_momentum=0.9,
        early_stopping_epochs=2,
        optimizer="sgd",
        learning_rate=0.02,
        nesterov=True,
        weight_decay=1e-3,
    ),
    "frozen, then all": dataclasses.replace(PLAIN, epochs=4, freeze_epochs=2, ema_momentum=0.8, schedule="cosine"),
    "half precision": dataclasses.replace(PLAIN, epochs=3, precision="mixed_float16", augment=Augmentation(flip=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATES)
def test_interrupted_in_every_epoch_is_as_if_never_interrupted(name, tmp_path):
    spec = STATES[name]
    whole, wanted = _run(tmp_path / "whole", spec, gradients=True)
    interrupted = 0
    for epoch in range(2, spec.epochs + 1):

        def interrupt(progress, epoch=epoch):
            if progress.epoch == epoch:
                raise KeyboardInterrupt

        try:
            _run(tmp_path / "parts", spec, progress=interrupt, gradients=True)
        except KeyboardInterrupt:
            interrupted += 1
    model, trained = _run(tmp_path / "parts", spec, gradients=True)
    assert interrupted >= 1
    assert _without_seconds(trained.history) == _without_seconds(wanted.history)
    assert trained.history.kept_epoch == wanted.history.kept_epoch
    assert trained.gradients.names == wanted.gradients.names
    np.testing.assert_array_equal(trained.gradients.norms, wanted.gradients.norms)
    for a, b in zip(model.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value))


@pytest.mark.slow
def test_mean_of_weights_is_validated_and_kept(tmp_path):
    raw, plain = _run(tmp_path / "raw", PLAIN)
    mean, trained = _run(tmp_path / "mean", dataclasses.replace(PLAIN, ema_momentum=0.5))
    # The mean changes no step.
    assert [epoch.loss for epoch in trained.history.epochs] == [epoch.loss for epoch in plain.history.epochs]
    assert not np.array_equal(mean.get_weights()[0], raw.get_weights()[0])
    assert trained.history.epochs[-1].validation_accuracy == _accuracy(mean)


@pytest.mark.slow
def test_mean_of_weights_and_statistics_is_the_formula(tmp_path):
    # One step an epoch, so that the weights after each step are known from shorter trainings.
    one = Split(images=TINY.images[:32], labels=TINY.labels[:32])
    after = []
    for epochs in (1, 2, 3):
        model, _ = _run(tmp_path / f"{epochs}", dataclasses.replace(PLAIN, epochs=epochs), data=one)
        after.append(model.get_weights())
    mean = problem.model().get_weights()
    for step, weights in enumerate(after, start=1):
        momentum = min(0.3, (1 + step) / (10 + step))
        mean = [old + (1 - momentum) * (new - old) for old, new in zip(mean, weights, strict=True)]
    model, _ = _run(tmp_path / "mean", dataclasses.replace(PLAIN, epochs=3, ema_momentum=0.3), data=one)
    for found, wanted in zip(model.get_weights(), mean, strict=True):
        if found.dtype == np.float32:
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_frozen_epochs_change_the_head_alone_and_freezing_leaves_no_trace(tmp_path):
    spec = dataclasses.replace(PLAIN, epochs=1, freeze_epochs=1, freeze_learning_rate=0.01)
    model = problem.model()
    before = {variable.path: np.asarray(variable.value).copy() for variable in model.variables}
    _, trained = _run(tmp_path, spec, model=model, gradients=True)
    changed = {v.path for v in model.variables if not np.array_equal(np.asarray(v.value), before[v.path])}
    assert {path for path in changed if "seed" not in path} == {"quadrant/scores/kernel", "quadrant/scores/bias"}
    assert all(layer.trainable for layer in model.layers)
    assert trained.history.epochs[0].learning_rate == 0.01
    assert np.isnan(trained.gradients.norms[:, :4]).all()
    assert (trained.gradients.norms[:, 4:] > 0).all()


@pytest.mark.slow
def test_early_stopping_ends_and_keeps_the_best_epoch(tmp_path):
    # A rate that destroys what it has learned: the best epoch is soon behind.
    spec = dataclasses.replace(PLAIN, epochs=30, early_stopping_epochs=2, optimizer="sgd", learning_rate=0.3)
    model, trained = _run(tmp_path, spec)
    accuracies = [epoch.validation_accuracy for epoch in trained.history.epochs]
    assert len(accuracies) < 30
    assert trained.history.kept_epoch == len(accuracies) - 2
    assert max(accuracies) == accuracies[-3]
    assert _accuracy(model) == max(accuracies)


def test_gradient_norms_are_those_of_the_loss(tmp_path):
    import keras
    import tensorflow as tf

    one = Split(images=TINY.images[:32], labels=TINY.labels[:32])
    model = problem.model(dropout=0)
    twin = problem.model(dropout=0)
    _, trained = _run(tmp_path, dataclasses.replace(PLAIN, epochs=1), model=model, gradients=True, data=one)
    with tf.GradientTape() as tape:
        scores = twin(one.images.astype(np.float32), training=True)
        loss = keras.losses.CategoricalCrossentropy()(np.eye(4, dtype=np.float32)[one.labels], scores)
    wanted = [np.linalg.norm(g) for g in tape.gradient(loss, [v.value for v in twin.trainable_variables])]
    assert trained.gradients.names == NAMES
    assert trained.gradients.norms.shape == (1, 6)
    # A bias before a normalisation has no gradient but rounding.
    np.testing.assert_allclose(trained.gradients.norms[0], wanted, rtol=1e-3, atol=1e-4)
    trained.gradients.write(tmp_path / "gradients.npz")
    again = GradientNorms.read(tmp_path / "gradients.npz")
    assert again.names == NAMES
    np.testing.assert_array_equal(again.norms, trained.gradients.norms)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_a_float32_model(precision, tmp_path):
    spec = dataclasses.replace(problem.SPEC, precision=precision, augment=Augmentation())
    model, trained = _run(tmp_path, spec, data=problem.TRAIN)
    assert trained.history.epochs[-1].validation_accuracy > 0.9
    assert abs(_accuracy(model) - trained.history.epochs[-1].validation_accuracy) < 0.05
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert {weight.dtype for weight in model.get_weights()} <= {np.dtype(np.float32), np.dtype(np.uint32)}
    assert not model.compiled


def test_half_precision_computes_in_half_and_scores_in_float32():
    from emb.train.precision import in_precision

    model = problem.model()
    twin = in_precision(model, "mixed_bfloat16")
    policies = {layer.name: layer.dtype_policy.name for layer in twin.layers}
    assert policies["rescale"] == policies["scores"] == "float32"
    assert {policies[name] for name in ("conv1", "normal1", "relu1", "drop1")} == {"mixed_bfloat16"}
    for a, b in zip(twin.variables, model.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value))


def _with_auxiliary():
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    inputs = keras.Input((12, 12, 1), name="pixels")
    x = layers.Flatten(name="flatten")(layers.Rescaling(1 / 255, name="rescale")(inputs))
    aside = layers.Dense(4, activation="softmax", name="auxiliary")(x)
    hidden = layers.Dense(8, activation="relu", name="hidden")(x)
    scores = layers.Dense(4, activation="softmax", name="scores")(hidden)
    return keras.Model(inputs, [scores, aside], name="two")


def test_auxiliary_outputs_are_trained_weigh_less_and_go(tmp_path):
    import keras

    model = _with_auxiliary()
    images = TINY.images[:32].astype(np.float32)
    targets = np.eye(4, dtype=np.float32)[TINY.labels[:32]]
    losses = [float(keras.losses.CategoricalCrossentropy()(targets, scores)) for scores in model(images)]
    one = Split(images=TINY.images[:32], labels=TINY.labels[:32])
    before = model.get_layer("auxiliary").get_weights()[0]
    _, trained = _run(tmp_path, dataclasses.replace(PLAIN, epochs=1), model=model, data=one)
    assert trained.history.epochs[0].loss == pytest.approx(losses[0] + 0.3 * losses[1], rel=1e-5)
    assert not np.array_equal(model.get_layer("auxiliary").get_weights()[0], before)
    single = without_auxiliaries(model)
    assert {layer.name for layer in single.layers} == {"pixels", "rescale", "flatten", "hidden", "scores"}
    assert single.name == "two"
    np.testing.assert_array_equal(np.asarray(single(images)), np.asarray(model(images)[0]))
    assert trained.history.epochs[0].validation_accuracy == _accuracy(single)


def test_model_of_one_output_has_no_auxiliaries():
    model = problem.model()
    assert without_auxiliaries(model) is model
