"""Weights carried from one model to another of the same architecture: what is equal after it, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from emb.errors import ModelError
from emb.zoo._applications import carry_over

# Within 0..1, as the nets below have no rescaling: larger ones would make every answer 0 or 1.
IMAGES = np.random.default_rng(3).uniform(0, 1, (4, 12, 12, 3)).astype(np.float32)
IMAGES[1:] *= [[[[1, 0.1, 0.5]]], [[[0, 1, 0.2]]], [[[0.1, 0.2, 1]]]]


def _net(
    *, bias=False, fused=False, scale=True, epsilon=1e-3, filters=4, kernel=3, classes=5, head=True, extra=False, name
):
    """Two branches of different depth around a sum; the same weights whatever `fused` is."""
    import keras
    from keras import layers

    pixels = keras.Input(shape=(12, 12, 3))
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=bias)(pixels)
    x = layers.BatchNormalization(epsilon=epsilon, scale=scale)(x)
    x = layers.Activation("relu")(x)
    branch = layers.Conv2D(filters, 3, padding="same", activation="relu" if fused else None)(x)
    branch = branch if fused else layers.Activation("relu")(branch)
    branch = layers.Conv2D(filters, 3, padding="same")(branch)
    bridge = layers.Conv2D(filters, 3, padding="same")(x)
    x = layers.Add()([bridge, branch])
    x = layers.GlobalAveragePooling2D()(x)
    if extra:
        x = layers.Dense(7, name="surplus")(x)
    if head:
        x = layers.Dense(classes, activation="softmax")(x)
    return _randomised(keras.Model(pixels, x, name=name))


def _randomised(model, seed=0):
    """Every weight drawn anew, the moving statistics too: with zeros and ones a mistake would stay unseen."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.5, 0.5)
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def _blank(model):
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    return model


def _answers(model, images=IMAGES):
    return np.asarray(model(images))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_same_answers_with_biases_folded_and_scales_filled_in(fused, bias, scale):
    source = _net(bias=bias, scale=scale, name="source")
    target = _blank(_net(fused=fused, name="target"))
    carry_over(source, target)
    np.testing.assert_allclose(_answers(target), _answers(source), atol=1e-5)
    assert _answers(source).std(axis=0).max() > 1e-3


def test_weights_are_copied_as_they_are():
    source, target = _net(name="source"), _blank(_net(fused=True, name="target"))
    carry_over(source, target)
    ours = sorted(weight.tobytes() for weight in target.get_weights())
    assert ours == sorted(weight.tobytes() for weight in source.get_weights())


def test_sequential_source():
    import keras
    from keras import layers

    def net(name):
        return keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten(), layers.Dense(5)], name=name)

    source, target = _randomised(net("source")), net("target")
    carry_over(source, target)
    np.testing.assert_array_equal(_answers(target), _answers(source))


@pytest.mark.parametrize("head", [False, True])
def test_another_head(head):
    source = _net(classes=9, head=head, name="source")
    target = _net(classes=5, name="target")
    before = target.get_weights()[-2:]
    carry_over(source, target, skip_head=True)
    np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])
    for ours, kept in zip(target.get_weights()[-2:], before, strict=True):
        np.testing.assert_array_equal(ours, kept)


def test_channels_turned_around():
    source, target = _net(name="source"), _blank(_net(name="target"))
    carry_over(source, target, reverse_channels=True)
    np.testing.assert_allclose(_answers(target), _answers(source, IMAGES[..., ::-1]), atol=1e-5)
    assert np.abs(_answers(target) - _answers(source)).max() > 1e-3


def _refused(source, target, **options):
    before = [weight.copy() for weight in target.get_weights()]
    with pytest.raises(ModelError) as caught:
        carry_over(source, target, **options)
    for ours, kept in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, kept)
    return caught.value


@pytest.mark.slow
def test_message_names_the_first_layer_of_another_shape():
    import keras

    keras.utils.clear_session()
    error = _refused(_net(filters=6, kernel=5, name="source"), _net(name="target"))
    assert str(error) == (
        "weights of another architecture: those of source do not fit target\n"
        "  why: conv2d_4 (Conv2D: kernel (3, 3, 3, 4)) is the first that does not fit: "
        "there stands conv2d (Conv2D: kernel (5, 5, 3, 6))\n"
        "  fix: give weights of the same architecture, made with the same arguments, input channels and classes"
    )


def test_other_classes_without_skipping_the_head():
    error = _refused(_net(classes=9, name="source"), _net(name="target"))
    assert "(Dense: kernel (4, 5), bias (5,)) is the first that does not fit" in error.why
    assert "(Dense: kernel (4, 9), bias (9,))" in error.why


def test_another_kind_of_layer():
    error = _refused(_net(extra=True, head=False, classes=5, name="source"), _net(name="target"))
    assert "there stands surplus (Dense: kernel (4, 7), bias (7,))" in error.why


def test_a_layer_too_few():
    error = _refused(_net(head=False, name="source"), _net(name="target"))
    assert error.why.endswith("is the first that finds nothing: source has 5 layers with weights")


def test_a_layer_too_many():
    source, target = _net(extra=True, classes=7, name="source"), _net(classes=7, head=True, name="target")
    error = _refused(source, target)
    assert error.why.startswith("target has 6 layers with weights; dense")
    assert error.why.endswith("(Dense: kernel (7, 7), bias (7,)) of source is left over")


def test_another_epsilon():
    error = _refused(_net(epsilon=1e-5, name="source"), _net(name="target"))
    assert "is the first that does not fit: its epsilon is 0.001, that of batch_normalization" in error.why
    assert error.why.endswith(" 1e-05")


def test_a_bias_that_is_missing_or_cannot_be_folded():
    assert "is the first that does not fit" in _refused(_net(name="source"), _net(bias=True, name="target")).why

    import keras
    from keras import layers

    def net(bias, name):
        pixels = keras.Input((12, 12, 3))
        x = layers.Conv2D(2, 3, use_bias=bias)(pixels)
        return keras.Model(pixels, layers.Flatten()(x), name=name)

    assert "is the first that does not fit" in _refused(net(True, "source"), net(False, "target")).why


def test_no_three_channels_to_turn_around():
    import keras
    from keras import layers

    def net():
        return keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="first")], name="grey")

    error = _refused(net(), net(), reverse_channels=True)
    assert str(error) == (
        "the channels of grey cannot be turned around\n"
        "  why: its first layer is first (Conv2D: kernel (3, 3, 1, 2), bias (2,)), no convolution of three\n"
        "  fix: give the weights to a model of three input channels"
    )
