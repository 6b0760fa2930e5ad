"""Optimizers against the papers' update rules in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from emb.spec.recipe import TrainSpec
from emb.train.optimizers import inner, make_optimizer

WEIGHT = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
BIAS = np.array([1.0, -1.0], np.float32)
GRADIENTS = [(np.full((2, 2), 0.5, np.float32), np.array([3.0, 4.0], np.float32)), (-WEIGHT, 2 * BIAS)]


def _variables():
    import keras

    return [keras.Variable(WEIGHT, name="kernel"), keras.Variable(BIAS, name="bias")]


def _stepped(spec, *, gradients=False):
    from keras import ops

    variables = _variables()
    optimizer = make_optimizer(spec, gradients=gradients)
    optimizer.build(variables)
    norms = []
    for pair in GRADIENTS:
        optimizer.apply_gradients([(ops.convert_to_tensor(g), v) for g, v in zip(pair, variables, strict=True)])
        if gradients:
            norms.append(np.asarray(optimizer.norms))
    return [np.asarray(variable.value) for variable in variables], np.array(norms)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_adds_weight_decay_to_the_gradient_before_the_momentum(momentum, nesterov):
    spec = TrainSpec(optimizer="sgd", learning_rate=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    (weight, bias), _ = _stepped(spec)
    for found, start, decay, index in ((weight, WEIGHT, 0.01, 0), (bias, BIAS, 0.0, 1)):
        value, velocity = start.astype(np.float64), np.zeros_like(start, np.float64)
        for pair in GRADIENTS:
            gradient = pair[index] + decay * value
            velocity = momentum * velocity - 0.1 * gradient
            value = value + (momentum * velocity - 0.1 * gradient if nesterov else velocity)
        np.testing.assert_allclose(found, value, rtol=1e-5)


def test_adams_weight_decay_is_decoupled_and_spares_biases():
    plain, _ = _stepped(TrainSpec(optimizer="adam", learning_rate=0.1))
    (weight, bias), _ = _stepped(TrainSpec(optimizer="adam", learning_rate=0.1, weight_decay=0.5))
    np.testing.assert_array_equal(bias, plain[1])
    assert np.all(np.abs(weight - plain[0]) > 0.04)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_recorded_norms_are_those_of_the_gradients_and_change_no_step(optimizer):
    spec = TrainSpec(optimizer=optimizer, learning_rate=0.1, weight_decay=0.01)
    plain, _ = _stepped(spec)
    recorded, norms = _stepped(spec, gradients=True)
    for a, b in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = [[np.linalg.norm(gradient) for gradient in pair] for pair in GRADIENTS]
    np.testing.assert_allclose(norms, wanted, rtol=1e-6)


def test_float16_scales_the_loss_and_records_the_norms_without_the_scale():
    from keras import ops

    spec = TrainSpec(optimizer="sgd", learning_rate=0.1, precision="mixed_float16")
    variables = _variables()
    optimizer = make_optimizer(spec, gradients=True)
    optimizer.build(variables)
    scale = float(optimizer.scale_loss(ops.convert_to_tensor(1.0)))
    assert scale > 1
    pairs = [(ops.convert_to_tensor(g * scale), v) for g, v in zip(GRADIENTS[0], variables, strict=True)]
    optimizer.apply_gradients(pairs)
    np.testing.assert_allclose(np.asarray(inner(optimizer).norms), [1.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(variables[1].value), BIAS - 0.1 * GRADIENTS[0][1], rtol=1e-6)
