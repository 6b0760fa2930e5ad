"""What the four criteria say, against their definitions written out, and the gradients on both backends."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from emb.errors import DataError, SpecError
from emb.prune import channels
from emb.prune._channel_graph import trace
from emb.prune._criteria import _gates
from emb.prune._surgery import with_masks
from emb.spec.contract import Pixels


def _body(layers, x):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="a")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="a_bn")(x))
    y = layers.Conv2D(5, 3, padding="same", name="b")(x)
    y = layers.Dropout(0.5)(layers.ReLU()(y))
    y = layers.BatchNormalization(name="c_bn")(layers.Conv2D(4, 1, name="c")(y))
    return layers.Add()([x, y])


@pytest.fixture(scope="module")
def model(made):
    return made(_body)


def _kernel(model, name):
    return np.array(model.get_layer(name).kernel).reshape(-1, model.get_layer(name).kernel.shape[-1])


@pytest.mark.parametrize(("criterion", "size"), [("l1", lambda w: np.abs(w).sum(0)), ("l2", np.linalg.norm)])
def test_norms_of_filters_are_summed_over_what_is_tied(model, criterion, size):
    found = channels.scores(model, criterion=criterion)
    sizes = {name: np.array([np.ravel(size(f[:, None]))[0] for f in _kernel(model, name).T]) for name in "abc"}
    each = {name: values / values.mean() for name, values in sizes.items()}
    np.testing.assert_allclose(found.groups["a"], each["a"] + each["c"], rtol=1e-5)
    np.testing.assert_allclose(found.groups["b"], each["b"], rtol=1e-5)
    assert (found.criterion, found.unscored) == (criterion, {})


def test_the_scale_of_a_layers_weights_decides_nothing(model, made):
    other = made(_body)
    other.get_layer("c").kernel.assign(np.array(model.get_layer("c").kernel) * 100)
    other.get_layer("a").kernel.assign(model.get_layer("a").kernel)
    one, two = (channels.scores(which, criterion="l1").groups["a"] for which in (model, other))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_scales_of_normalizations(model):
    found = channels.scores(model, criterion="bn-scale")
    expected = sum(np.abs(np.array(model.get_layer(name).gamma)) for name in ("a_bn", "c_bn"))
    np.testing.assert_allclose(found.groups["a"], expected, rtol=1e-6)
    why = "no batch normalization with a scale stands behind all of its channels"
    assert found.unscored == {"b": why}
    plan = channels.plan_for_macs(model, found, removed=0.2, scope="global")
    assert len(plan.kept["b"]) == 5
    assert plan.untouched == {"b": why}


def test_a_model_without_normalization_has_no_scales(made):
    def body(layers, x):
        return layers.BatchNormalization(scale=False)(layers.Conv2D(4, 3, name="a")(x))

    with pytest.raises(SpecError) as caught:
        channels.scores(made(body), criterion="bn-scale")
    assert str(caught.value).splitlines()[1:] == [
        "  why: no batch normalization with a scale stands behind a layer whose channels can go",
        "  fix: choose l1, l2 or taylor",
    ]


def _data(count=40):
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, (count, 6, 6, 3)).astype(np.uint8), rng.integers(0, 4, count)


@pytest.mark.slow
def test_taylor_is_the_mean_absolute_change_of_the_loss(model):
    """Each activation scaled by 1 + h and 1 - h, image by image; in inference, without dropout."""
    images, labels = _data()
    graph = trace(model)
    masked, masks = with_masks(model, _gates(model, graph))
    step, expected = 1e-2, np.zeros(graph.count)

    def losses():
        scores = np.asarray(masked(images.astype(np.float32), training=False), np.float64)
        return -np.log(scores[np.arange(len(labels)), labels])

    for layer, numbers in masks:
        for place, number in enumerate(numbers):
            changed = []
            for value in (1 + step, 1 - step):
                mask = np.ones(layer.mask.shape, np.float32)
                mask[..., place] = value
                layer.mask.assign(mask)
                changed.append(losses())
            layer.mask.assign(np.ones(layer.mask.shape, np.float32))
            expected[number] += np.abs((changed[0] - changed[1]) / (2 * step)).mean()
    found = channels.scores(model, criterion="taylor", images=images, labels=labels)
    for group in graph.groups:
        np.testing.assert_allclose(found.groups[group.name], expected[group.decisions], rtol=0.02, atol=1e-4)


def test_taylor_looks_behind_the_normalization_that_alone_takes_a_layers_output(model):
    assert set(_gates(model, trace(model))) == {("a_bn", 0), ("b", 0), ("c_bn", 0), ("scores", 0)}


def test_taylor_leaves_the_model_as_it_was(model):
    images, labels = _data()
    before = [np.array(weight) for weight in model.weights]
    channels.scores(model, criterion="taylor", images=images, labels=labels)
    for was, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(was, np.array(weight))
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.slow
def test_taylor_takes_logits_and_pixels_as_the_model_does(model):
    import keras

    images, labels = _data()
    one = channels.scores(model, criterion="taylor", images=images, labels=labels, pixels=Pixels(scale=0.5))
    two = channels.scores(model, criterion="taylor", images=images * 0.5, labels=labels)
    np.testing.assert_allclose(one.groups["b"], two.groups["b"], rtol=1e-4)
    logits = keras.models.clone_model(model)
    logits.set_weights(model.get_weights())
    logits.get_layer("scores").activation = keras.activations.linear
    three = channels.scores(logits, criterion="taylor", images=images, labels=labels, pixels=Pixels(scale=0.5))
    np.testing.assert_allclose(one.groups["b"], three.groups["b"], rtol=1e-4)


@pytest.mark.slow
def test_taylor_looks_at_the_first_output(scramble):
    import keras
    from keras import layers

    image = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu", name="a")(image))
    scores = layers.Dense(4, activation="softmax", name="scores")(x)
    other = layers.Dense(4, name="auxiliary")(layers.Dense(5, name="b")(x))
    images, labels = _data()
    one = channels.scores(
        scramble(keras.Model(image, [scores, other])), criterion="taylor", images=images, labels=labels
    )
    two = channels.scores(keras.Model(image, scores), criterion="taylor", images=images, labels=labels)
    np.testing.assert_allclose(one.groups["a"], two.groups["a"], rtol=1e-4)
    assert one.groups["b"] == (0.0,) * 5


@pytest.mark.slow
def test_taylor_draws_its_images_at_random(model):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 3, (600, 6, 6, 3)).astype(np.uint8), rng.integers(0, 4, 600)

    def scores(seed):
        drawn = None if seed is None else np.random.default_rng(seed)
        return channels.scores(model, criterion="taylor", images=images, labels=labels, rng=drawn).groups["b"]

    assert scores(1) == scores(1) != scores(2)
    first = channels.scores(model, criterion="taylor", images=images[:512], labels=labels[:512]).groups["b"]
    assert scores(None) == first


def test_taylor_needs_images(model):
    with pytest.raises(SpecError) as caught:
        channels.scores(model, criterion="taylor")
    assert str(caught.value) == (
        "the criterion taylor needs images and labels\n"
        "  why: it looks at the gradients of the loss, where the others look at weights alone\n"
        "  fix: give train images with their labels, or choose l1, l2 or bn-scale"
    )
    images, labels = _data()
    with pytest.raises(DataError) as wrong:
        channels.scores(model, criterion="taylor", images=images, labels=labels[1:])
    assert str(wrong.value) == (
        "the criterion taylor got 40 images and 39 labels\n"
        "  why: it needs the gradients of the loss on train images\n"
        "  fix: give as many labels as images, and at least one"
    )


_PROGRAM = """
import sys
import keras, numpy as np
from emb.prune import channels

model = keras.models.load_model(sys.argv[1], compile=False)
data = np.load(sys.argv[2])
scores = channels.scores(model, criterion="taylor", images=data["images"], labels=data["labels"])
plan = channels.plan_for_macs(model, scores, removed=0.4, scope="global")
x = data["images"].astype(np.float32)
outputs = [np.asarray(made(model, plan)(x, training=False)) for made in (channels.smaller, channels.masked)]
print(keras.backend.backend(), *scores.groups["a"], *scores.groups["b"], float(np.abs(outputs[0] - outputs[1]).max()))
"""


@pytest.mark.slow
@pytest.mark.long
def test_the_same_under_jax(model, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    images, labels = _data()
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "model.keras"), str(tmp_path / "data.npz")],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    backend, *values, difference = done.stdout.split()
    here = channels.scores(model, criterion="taylor", images=images, labels=labels)
    assert backend == "jax"
    np.testing.assert_allclose([*map(float, values)], [*here.groups["a"], *here.groups["b"]], rtol=1e-3)
    assert float(difference) < 1e-5
