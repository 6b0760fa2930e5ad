"""L2 pooling against a loop, Keras's batch normalization against its formula, and the layers' way through a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.errors import SpecError


def _looped(x, *, side, stride, padding):
    """sqrt of the sum of squares, window after window; "same" centres the windows, the odd zero at the end."""
    if padding == "same":
        needed = [(-(-extent // stride) - 1) * stride + side - extent for extent in x.shape[1:3]]
        around = [(max(0, total) // 2, max(0, total) - max(0, total) // 2) for total in needed]
        x = np.pad(x, [(0, 0), *around, (0, 0)])
    rows, columns = ((extent - side) // stride + 1 for extent in x.shape[1:3])
    result = np.empty((x.shape[0], rows, columns, x.shape[3]))
    for row, column in itertools.product(range(rows), range(columns)):
        window = x[:, row * stride : row * stride + side, column * stride : column * stride + side]
        result[:, row, column] = np.sqrt((window**2).sum((1, 2)))
    return result


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(4, 7), st.integers(4, 7), st.integers(1, 4)),
    side=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
    seed=st.integers(0, 99),
)
def test_l2_pooling_is_the_root_of_the_sum_of_squares(shape, side, stride, padding, seed):
    from emb.layers import L2Pooling2D

    x = np.random.default_rng(seed).normal(size=shape)
    found = np.asarray(L2Pooling2D(side, stride, padding)(x.astype(np.float32)))
    np.testing.assert_allclose(found, _looped(x, side=side, stride=stride, padding=padding), rtol=1e-5, atol=2e-6)


def test_l2_pooling_of_zeros_has_a_gradient():
    import keras

    from emb.layers import L2Pooling2D

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1), L2Pooling2D(2), keras.layers.Flatten()], name="zeros"
    )
    model.compile(optimizer="sgd", loss="mse")
    model.fit(np.zeros((2, 4, 4, 2), np.float32), np.ones((2, 12), np.float32), verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_l2_pooling_is_counted_as_a_pooling():
    import keras

    from emb.graph.cost import cost
    from emb.graph.keras import read
    from emb.layers import L2Pooling2D

    image = keras.Input((8, 8, 2), name="pixels")
    graph = read(keras.Model(image, L2Pooling2D(3, 2, name="pool")(image), name="pooled"))
    found = cost(graph)
    assert [operation.kind for operation in graph.operations] == ["L2_POOL_2D"]
    assert (found.parameters, found.macs, found.uncounted) == (0, 0, ())
    assert found.operations[0].field is not None
    assert (found.operations[0].field.pixels, found.operations[0].field.jump) == ((3, 3), (2, 2))


@settings(max_examples=25)
@given(
    channels=st.integers(1, 6),
    epsilon=st.sampled_from([1e-5, 1e-3, 0.1]),
    centred=st.booleans(),
    scaled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_batch_normalization_is_its_formula(channels, epsilon, centred, scaled, seed):
    """Ioffe and Szegedy 2015, algorithms 1 and 2; the statistics of the batch in training, the kept ones after it."""
    import keras

    rng = np.random.default_rng(seed)
    x = rng.normal(1, 2, (3, 4, 4, channels)).astype(np.float32)
    layer = keras.layers.BatchNormalization(epsilon=epsilon, center=centred, scale=scaled, momentum=0.9)
    layer.build(x.shape)
    gamma = rng.normal(1, 0.5, channels).astype(np.float32) if scaled else np.ones(channels, np.float32)
    beta = rng.normal(0, 0.5, channels).astype(np.float32) if centred else np.zeros(channels, np.float32)
    mean, variance = rng.normal(size=channels).astype(np.float32), rng.uniform(0.5, 2, channels).astype(np.float32)
    layer.set_weights([*([gamma] if scaled else []), *([beta] if centred else []), mean, variance])

    np.testing.assert_allclose(layer(x), _normalized(x, gamma, beta, mean, variance, epsilon), rtol=1e-4, atol=1e-5)
    in_training = np.asarray(layer(x, training=True))
    batch_mean, batch_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = _normalized(x, gamma, beta, batch_mean, batch_variance, epsilon)
    np.testing.assert_allclose(in_training, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * mean + 0.1 * batch_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 * variance + 0.1 * batch_variance, rtol=1e-4, atol=1e-5)


def _normalized(x, gamma, beta, mean, variance, epsilon):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def _own_model():
    import keras

    from emb.layers import L2Pooling2D, LocalResponseNormalization

    image = keras.Input((9, 9, 6), name="pixels")
    x = LocalResponseNormalization(1, k=1.5, alpha=0.01, beta=0.5, across="space", name="norm")(image)
    x = L2Pooling2D((3, 2), (2, 2), "same", name="pool")(x)
    return keras.Model(image, x, name="own")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "model.keras"
    _own_model().save(path)
    return path


def test_l2_pooling_refuses_unequal_strides():
    from emb.layers import L2Pooling2D

    with pytest.raises(SpecError) as caught:
        L2Pooling2D((3, 2))
    assert str(caught.value) == (
        "L2 pooling cannot move by (3, 2)\n"
        "  why: it is a depthwise convolution, and TensorFlow's takes one stride for both axes\n"
        "  fix: give strides of one number"
    )


def test_a_file_with_these_layers_loads_in_safe_mode_and_computes_the_same(keras_file):
    from emb.export.source import load_keras

    first, before = load_keras(keras_file), _own_model()
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 6)).astype(np.float32)
    np.testing.assert_array_equal(first(x), before(x))
    kept = {name: getattr(first.get_layer("norm"), name) for name in ("depth_radius", "k", "alpha", "beta", "across")}
    assert kept == {"depth_radius": 1, "k": 1.5, "alpha": 0.01, "beta": 0.5, "across": "space"}
    pool = first.get_layer("pool")
    assert (tuple(pool.pool_size), tuple(pool.strides), pool.padding) == ((3, 2), (2, 2), "same")
    assert first.output_shape == (None, 5, 5, 6)


@pytest.mark.slow  # another process imports Keras
def test_a_fresh_process_that_imported_no_layer_loads_it(keras_file):
    import subprocess
    import sys

    code = f"from emb.export.source import load_keras; from pathlib import Path; load_keras(Path({str(keras_file)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
