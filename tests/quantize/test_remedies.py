"""Each remedy against its mathematics, and the simulation that they work on against the int8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from emb.export import tflite
from emb.export.plain import plain
from emb.layers import GroupedConv2D, QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from emb.layers.fake_quantization import on_range, on_weight_grid
from emb.quantize import SCHEMES, KnownRange, Range, quantize_tflite
from emb.quantize._known import Moments, recognized
from emb.quantize.remedies.bias_correction import bias_corrected
from emb.quantize.remedies.equalization import equalized, pairs_of
from emb.quantize.remedies.placement import sites_of
from emb.quantize.remedies.range_choice import before_softmax, chosen_ranges
from emb.quantize.remedies.rounding import learned_kernel, rounding_learned
from emb.quantize.remedies.simulation import activations, give_back, known_ranges, ranges_of, simulated
from emb.quantize.remedies.walk import copied

SIDE = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 1)).astype(np.float32)


def _network(build: Any, *, seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIDE, SIDE, 1))
    x = build(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(5, activation="softmax", name="scores")(x))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return plain(model)


def _chain(x: Any) -> Any:
    x = layers.Conv2D(6, 3, name="first", padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise", activation="relu", depth_multiplier=2)(x)
    x = layers.MaxPooling2D(2)(x)
    x = GroupedConv2D(8, 3, groups=2, name="grouped", activation="relu")(x)
    return layers.Dense(7, name="dense", activation="relu")(layers.Flatten()(x))


def _residual(x: Any) -> Any:
    x = layers.Conv2D(6, 3, name="stem", activation="relu")(x)
    y = layers.Conv2D(6, 3, padding="same", name="inner")(x)
    y = layers.ReLU(name="inner_relu")(layers.BatchNormalization()(y))
    y = layers.Conv2D(6, 3, padding="same", name="outer")(y)
    x = layers.ReLU(name="joined_relu")(layers.Add(name="joined")([x, y]))
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _joined(x: Any) -> Any:
    x = layers.Conv2D(6, 3, name="stem", activation="relu")(x)
    one = layers.Conv2D(4, 1, name="one", activation="relu")(x)
    pooled = layers.MaxPooling2D(3, 1, "same", name="pooled")(x)
    x = layers.Concatenate(name="joined")([one, pooled])
    x = layers.ReLU(name="normed_relu")(layers.BatchNormalization(name="normed")(x))
    # Not averages: kernels disagree on which way a half is rounded.
    x = layers.MaxPooling2D(2, name="halved")(x)
    return layers.Flatten()(layers.Conv2D(3, 3, activation="tanh", name="last")(x))


def _features(x: Any) -> Any:
    """Numbers without height and width are normalized by a product and a sum."""
    x = layers.Conv2D(6, 3, name="stem", activation="relu")(x)
    both = [layers.GlobalMaxPooling2D(name="most")(x), layers.Flatten(name="all")(layers.MaxPooling2D(4)(x))]
    x = layers.BatchNormalization(name="normed")(layers.Concatenate(name="joined")(both))
    return layers.Dense(4, activation="tanh", name="last")(layers.ReLU(name="normed_relu")(x))


def _dense(x: Any) -> Any:
    """Of each normalization before ReLU and an unpadded convolution a limit is left; joined tensors are read twice."""
    x = layers.Conv2D(6, 3, name="stem")(x)
    for name in ("first", "second"):
        y = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_normed")(x))
        y = layers.Conv2D(4, 1, name=f"{name}_narrow", activation="relu")(y)
        x = layers.Concatenate(name=f"{name}_joined")([x, layers.Conv2D(3, 3, padding="same", name=f"{name}_new")(y)])
    x = layers.ReLU(name="normed_relu")(layers.BatchNormalization(name="normed")(x))
    return layers.GlobalMaxPooling2D(name="most")(layers.Conv2D(8, 3, name="last")(x))


NETWORKS = {"chain": _chain, "residual": _residual, "joined": _joined, "features": _features, "dense": _dense}


@pytest.mark.slow
@given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    lowest=st.floats(-20, 0, width=32),
    highest=st.floats(0.125, 20, width=32),
)
@settings(deadline=None, max_examples=50)
def test_values_on_a_range_are_256_integers_and_within_half_a_step(
    values: list[float], lowest: float, highest: float
) -> None:
    x = np.array(values, np.float32)
    ends = (keras.ops.convert_to_tensor(end, "float32") for end in (lowest, highest))
    y = np.asarray(on_range(keras.ops.convert_to_tensor(x), *ends), np.float64)
    step = (highest - lowest) / 255
    codes = y / step
    np.testing.assert_allclose(codes, np.round(codes), atol=2e-3)
    inside = (x >= lowest + step) & (x <= highest - step)
    assert np.all(np.abs(y - x)[inside] <= step * 0.51)
    assert np.ptp(np.round(codes)) <= 255


@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_weight_of_a_channel_keeps_its_value(bits: int) -> None:
    kernel = np.random.default_rng(1).normal(0, 1, (3, 3, 4, 5)).astype(np.float32)
    grid = np.asarray(on_weight_grid(kernel, (0, 1, 2), bits=bits))
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    np.testing.assert_allclose(np.abs(grid).max(axis=(0, 1, 2)), largest, rtol=1e-6)
    codes = grid / (largest / (2 ** (bits - 1) - 1))
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
    # On the grid already, nothing moves: the converter finds what was chosen.
    np.testing.assert_allclose(np.asarray(on_weight_grid(grid, (0, 1, 2), bits=bits)), grid, rtol=1e-6)


def test_the_gradient_passes_as_if_nothing_were_rounded() -> None:
    import tensorflow as tf

    x = tf.Variable([-3.0, -0.5, 0.25, 2.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(on_range(x, -1.0, 1.0))
    np.testing.assert_allclose(tape.gradient(y, x), [0, 1, 1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_simulation_gives_the_int8_files_integers_but_for_a_step_or_two(name: str, tmp_path: Path) -> None:
    model = _network(NETWORKS[name])
    ranges = ranges_of(model, IMAGES, method="minmax")
    head, twin_head = before_softmax(model), before_softmax(simulated(model, ranges))
    tflite.export(head, tmp_path / "float.tflite")
    quantize_tflite(
        tmp_path / "float.tflite",
        tmp_path / "int8.tflite",
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=IMAGES.astype(np.uint8),
        known=known_ranges(model, IMAGES, ranges),
    )
    from emb.runtimes import open_runtime
    from emb.spec.contract import Pixels

    with open_runtime("litert", model=tmp_path / "int8.tflite", mode="reference") as process:
        file = process.scores(IMAGES.astype(np.uint8), pixels=Pixels())
    scores = ranges["scores"]
    ours = (twin_head.predict_on_batch(IMAGES) - file) / (scores.highest - scores.lowest) * 255
    assert np.mean(np.abs(ours) < 0.5) > 0.8
    assert np.abs(ours).max() < 2.5


def test_ranges_stand_where_the_converter_has_them() -> None:
    sites = {site.name: site for site in sites_of(_network(_joined))}
    # What ReLU is fused with has no range; what only a concatenation reads shares its; pooling hands on.
    assert "one" not in sites
    assert "normed" not in sites
    groups = {name: site.group for name, site in sites.items()}
    relu = next(name for name in groups if groups[name] == groups["joined"])
    assert relu not in ("joined", "pooled")
    assert groups["pooled"] == next(iter(groups))
    assert not sites["pooled"].is_rounded
    assert sites["joined"].is_rounded
    assert groups["halved"] == groups["normed_relu"]
    assert [site.fixed for site in sites.values()].count((-1.0, 127 / 128)) == 2


def test_handed_ranges_are_found_again_in_the_file(tmp_path: Path) -> None:
    from emb.graph import flatbuffer as fb

    model = _network(_residual)
    ranges = ranges_of(model, IMAGES, method="minmax")
    ranges["joined_relu"] = Range(lowest=0.0, highest=ranges["joined_relu"].highest / 2)
    tflite.export(model, tmp_path / "float.tflite")
    quantize_tflite(
        tmp_path / "float.tflite",
        tmp_path / "int8.tflite",
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=IMAGES.astype(np.uint8),
        known=known_ranges(model, IMAGES, ranges),
    )
    file = fb.load(tmp_path / "int8.tflite")
    graph = file.subgraphs[0]
    add = next(operator for operator in graph.operators if fb.operation_name(file, operator) == "ADD")
    scale = float(graph.tensors[add.outputs[0]].quantization.scale[0])
    assert scale == pytest.approx(ranges["joined_relu"].highest / 255, rel=1e-3)


def test_a_tensor_of_other_values_is_not_recognized() -> None:
    moments = Moments(lowest=0.0, highest=4.0, mean=1.0, deviation=0.5)
    known = [KnownRange(moments=moments, range=Range(lowest=0.0, highest=2.0))]
    near = Moments(lowest=0.0, highest=4.001, mean=1.0, deviation=0.5)
    far = Moments(lowest=0.0, highest=4.0, mean=1.2, deviation=0.5)
    assert recognized(known, {"near": near, "far": far}) == {"near": known[0].range}
    assert recognized([], {"near": near}) == {}


@pytest.mark.slow
@given(seed=st.integers(0, 50), spread=st.floats(1, 300))
@settings(deadline=None, max_examples=8)
def test_equalization_leaves_the_function_and_evens_the_channels(seed: int, spread: float) -> None:
    model = _network(_chain, seed=seed)
    first, second = model.get_layer("first"), model.get_layer("depthwise")
    factors = np.random.default_rng(seed).permutation(np.geomspace(1, spread, 6))
    first.set_weights([first.get_weights()[0] * factors, first.get_weights()[1] * factors])
    second.set_weights([second.get_weights()[0] / factors[:, None], second.get_weights()[1]])
    before = [np.array(weight) for weight in model.get_weights()]
    new, pairs = equalized(model)
    np.testing.assert_allclose(new.predict_on_batch(IMAGES), model.predict_on_batch(IMAGES), atol=1e-5)
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("first", "depthwise"),
        ("depthwise", "grouped"),
        ("grouped", "dense"),
        ("dense", "scores"),
    ]
    by_first = np.abs(new.get_layer("first").get_weights()[0]).reshape(-1, 6).max(axis=0)
    by_second = np.abs(new.get_layer("depthwise").get_weights()[0]).max(axis=(0, 1, 3))
    np.testing.assert_allclose(by_first, by_second, rtol=5e-2)


def test_equalization_stops_where_it_would_not_be_exact() -> None:
    def build(x: Any) -> Any:
        x = layers.Conv2D(4, 3, name="six")(x)
        x = layers.Conv2D(4, 3, name="tanh")(layers.ReLU(6.0)(x))
        x = layers.Conv2D(4, 3, name="read_twice")(layers.Activation("tanh")(x))
        y = layers.Conv2D(4, 1, name="branch")(x)
        return layers.GlobalAveragePooling2D()(layers.Add()([x, y]))

    assert pairs_of(_network(build)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_bias_correction_takes_the_mean_error_away(name: str) -> None:
    model = _network(NETWORKS[name])
    ranges = ranges_of(model, IMAGES, method="minmax")
    new, changes = bias_corrected(model, IMAGES, ranges, bits=4)
    kernels = {layer.name for layer in model.layers if hasattr(layer, "kernel")}
    assert set(changes) == kernels
    assert max(changes.values()) > 1e-2

    def means(twin: keras.Model) -> list[np.ndarray]:
        heads = keras.Model(twin.inputs[0], [twin.get_layer(layer).output for layer in sorted(kernels)])
        return [one.reshape(-1, one.shape[-1]).mean(axis=0) for one in heads.predict_on_batch(IMAGES)]

    wanted, corrected = means(copied(model)), means(simulated(new, ranges, bits=4))
    for one, other in zip(wanted, corrected, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3)


@pytest.mark.slow
def test_a_second_correction_against_the_floats_finds_nothing_left() -> None:
    """Without them it would take the corrected biases for the aim, and correct the same error once more."""
    model = _network(_residual)
    ranges = ranges_of(model, IMAGES, method="minmax")
    once, first = bias_corrected(model, IMAGES, ranges, bits=4)
    _, again = bias_corrected(once, IMAGES, ranges, floats=model, bits=4)
    _, twice = bias_corrected(once, IMAGES, ranges, bits=4)
    assert max(again.values()) < 1e-3
    assert max(twice.values()) > 0.3 * max(first.values())


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "layer",
    [
        QuantizedConv2D(4, 3, padding="same"),
        QuantizedConv2D(4, 3, groups=2),
        QuantizedDepthwiseConv2D(3, depth_multiplier=2),
        QuantizedDense(6),
    ],
    ids=["convolution", "grouped", "depthwise", "dense"],
)
def test_learned_rounding_is_never_worse_than_the_nearest(layer: Any, bits: int) -> None:
    rng = np.random.default_rng(5)
    shape = (16, 20) if isinstance(layer, QuantizedDense) else (16, 6, 6, 4)
    # Correlated inputs, as activations are: independent errors of weights could not make up for each other otherwise.
    x = np.maximum(rng.normal(0.5, 0.2, shape) + rng.normal(0, 1, (shape[0],) + (1,) * (len(shape) - 1)), 0)
    layer = type(layer).from_config({**layer.get_config(), "bits": bits})
    layer.build(shape)
    kernel = rng.normal(0, 1, layer.kernel.shape)
    layer.set_weights([kernel, rng.normal(0, 1, layer.bias.shape)])
    x = keras.ops.convert_to_tensor(x, "float32")
    wanted = layer.with_kernel(x, kernel.astype(np.float32))
    learned, share = learned_kernel(layer, x, wanted, rng=np.random.default_rng(0))
    again, _ = learned_kernel(layer, x, wanted, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(learned, again)

    def error(kernel: np.ndarray) -> float:
        return float(np.mean(np.square(np.asarray(layer.with_kernel(x, kernel) - wanted))))

    nearest = np.asarray(on_weight_grid(kernel.astype(np.float32), layer.summed_axes, bits=bits))
    assert error(learned) <= error(nearest) * (1 + 1e-4)
    assert share < 0.6
    # It stays on the grid: each weight went up or down, and the largest stayed.
    np.testing.assert_allclose(
        np.asarray(on_weight_grid(learned, layer.summed_axes, bits=bits)), learned, rtol=1e-4, atol=1e-6
    )
    step = np.abs(kernel).max(axis=layer.summed_axes, keepdims=True) / (2 ** (bits - 1) - 1)
    assert np.all(np.abs(learned - kernel) <= step * (1 + 1e-3))


@pytest.mark.slow
def test_learned_rounding_of_a_network_brings_its_scores_nearer() -> None:
    model = _network(_residual)
    ranges = ranges_of(model, IMAGES, method="minmax")
    new, shares = rounding_learned(model, IMAGES, ranges, seed=0, bits=4)
    assert set(shares) == {"stem", "inner", "outer", "scores"}
    wanted = before_softmax(model).predict_on_batch(IMAGES)
    errors = [
        np.square(before_softmax(simulated(one, ranges, bits=4)).predict_on_batch(IMAGES) - wanted).mean()
        for one in (model, new)
    ]
    assert errors[1] < errors[0]


@pytest.mark.slow
def test_a_tensor_with_a_tail_gets_another_method() -> None:
    """One channel that nothing reads reaches a hundred times further than all others, on two numbers of 60,000."""
    images = np.random.default_rng(0).integers(0, 256, (96, SIDE, SIDE, 1)).astype(np.float32)
    model = _network(_residual)
    first, second = model.get_layer("inner"), model.get_layer("outer")
    values = keras.Model(model.inputs[0], first.output).predict_on_batch(images)
    threshold = np.sort(values[..., 0].ravel())[-3]
    kernel, bias = first.get_weights()
    gain = 100 * values.max() / (values[..., 0].max() - threshold)
    kernel[..., 0], bias[0] = kernel[..., 0] * gain, (bias[0] - threshold) * gain
    first.set_weights([kernel, bias])
    kernel, bias = second.get_weights()
    kernel[:, :, 0] = 0
    second.set_weights([kernel, bias])
    ranges, choices = chosen_ranges(model, images, first="minmax")
    assert choices["inner_relu"] == "percentile"
    wanted = before_softmax(model).predict_on_batch(images)
    errors = [
        np.square(before_softmax(simulated(model, one)).predict_on_batch(images) - wanted).mean()
        for one in (ranges_of(model, images, method="minmax"), ranges)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_weights_go_into_the_simulation_and_back() -> None:
    model = _network(_features)
    twin = simulated(model, ranges_of(model, IMAGES, method="minmax"))
    for layer in twin.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(layer.kernel + 1.0)
        if layer.name == "normed":
            layer.gamma.assign(layer.gamma * 2)
    back = copied(model)
    give_back(twin, back)
    np.testing.assert_allclose(back.get_layer("stem").kernel, model.get_layer("stem").kernel + 1.0)
    np.testing.assert_allclose(back.get_layer("normed").gamma, model.get_layer("normed").gamma * 2)
    np.testing.assert_array_equal(back.get_layer("stem").bias, model.get_layer("stem").bias)


def test_activations_are_those_of_the_model() -> None:
    model = _network(_features)
    sites = sites_of(model)
    values = next(iter(activations(model, IMAGES, sites)))
    norm = model.get_layer("normed")
    inputs = keras.Model(model.inputs[0], model.get_layer("joined").output).predict_on_batch(IMAGES)
    scale = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    np.testing.assert_allclose(values["normed/product"], inputs * scale, atol=1e-5)
