"""Local response normalization: the lecture's formula term by term, its file, its cost, and its integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.errors import SpecError


def _looped(x, *, depth_radius, k, alpha, beta, across):
    """b[x, y, i] = a[x, y, i] / (k + alpha * sum of a ** 2 over the window) ** beta, one value after the other."""
    result = np.empty_like(x)
    for place in np.ndindex(x.shape):
        image, row, column, channel = place
        total = 0.0
        if across == "channels":
            for j in range(max(0, channel - depth_radius), min(x.shape[3] - 1, channel + depth_radius) + 1):
                total += x[image, row, column, j] ** 2
        else:
            for y in range(max(0, row - depth_radius), min(x.shape[1] - 1, row + depth_radius) + 1):
                for z in range(max(0, column - depth_radius), min(x.shape[2] - 1, column + depth_radius) + 1):
                    total += x[image, y, z, channel] ** 2
        result[place] = x[place] / (k + alpha * total) ** beta
    return result


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5), st.integers(1, 8)),
    depth_radius=st.integers(0, 4),
    k=st.floats(0.5, 4),
    alpha=st.floats(0, 1),
    beta=st.sampled_from([0.75, 0.5, 1.0, 0.3]),
    across=st.sampled_from(["channels", "space"]),
    seed=st.integers(0, 99),
)
def test_the_lectures_formula(shape, seed, **arguments):
    from emb.layers import LocalResponseNormalization

    x = np.random.default_rng(seed).normal(0, 3, shape)
    found = np.asarray(LocalResponseNormalization(**arguments)(x.astype(np.float32)))
    np.testing.assert_allclose(found, _looped(x, **arguments), rtol=1e-4, atol=1e-6)


@settings(max_examples=15)
@given(kept=st.sets(st.integers(0, 8), min_size=1), depth_radius=st.integers(0, 4), seed=st.integers(0, 99))
def test_pruned_channels_count_as_zero(kept, depth_radius, seed):
    from emb.layers import LocalResponseNormalization

    x = np.random.default_rng(seed).normal(0, 3, (1, 2, 2, 9)).astype(np.float32)
    places = sorted(kept)
    whole = np.zeros_like(x)
    whole[..., places] = x[..., places]
    expected = np.asarray(LocalResponseNormalization(depth_radius, alpha=0.5)(whole))[..., places]
    found = LocalResponseNormalization(depth_radius, alpha=0.5, positions=places)(x[..., places])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_position_for_each_channel():
    from emb.layers import LocalResponseNormalization

    with pytest.raises(SpecError) as caught:
        LocalResponseNormalization(positions=[0, 2], name="norm")(np.zeros((1, 2, 2, 3), np.float32))
    assert str(caught.value) == (
        "norm has 2 positions and 3 channels\n  fix: give one position for each channel, or none at all"
    )


def test_alexnets_numbers_are_the_defaults():
    from emb.layers import LocalResponseNormalization

    x = np.random.default_rng(0).normal(0, 30, (1, 2, 2, 9))
    expected = _looped(x, depth_radius=2, k=2.0, alpha=1e-4, beta=0.75, across="channels")
    np.testing.assert_allclose(LocalResponseNormalization()(x.astype(np.float32)), expected, rtol=1e-5)


def test_large_half_precision_activations_stay_finite():
    from emb.layers import LocalResponseNormalization

    x = np.full((1, 1, 1, 5), 60_000, np.float16)
    found = np.asarray(LocalResponseNormalization(dtype="float16")(x))
    assert found.dtype == np.float16
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"across": "batch"}, "across cannot be 'batch'\n  fix: set it to one of channels, space"),
        (
            {"k": 0},
            "no local response normalization has depth_radius 2, k 0 and alpha 0.0001\n"
            "  why: what is raised to the power -beta must be above 0\n"
            "  fix: give a depth_radius and an alpha of at least 0, and k above 0",
        ),
    ],
)
def test_what_it_refuses(arguments, message):
    from emb.layers import LocalResponseNormalization

    with pytest.raises(SpecError) as caught:
        LocalResponseNormalization(**arguments)
    assert str(caught.value) == message


def _model(across, *, pixels=(12, 12, 16)):
    """Squares of raw pixels times this alpha reach alpha * sum = 3.6, as behind a network's first convolution."""
    import keras

    from emb.layers import LocalResponseNormalization

    image = keras.Input(pixels, name="pixels")
    radius, alpha = {"channels": (2, 1.1e-5), "space": (1, 6e-6)}[across]
    normalized = LocalResponseNormalization(radius, alpha=alpha, across=across, name="norm")(
        keras.layers.ReLU(name="relu")(image)
    )
    return keras.Model(image, normalized, name="normalized")


@pytest.mark.parametrize(("across", "field"), [("channels", 1), ("space", 3)])
def test_it_costs_neither_parameters_nor_macs_and_its_field_is_known(across, field):
    from emb.graph.cost import cost
    from emb.graph.keras import read

    graph = read(_model(across))
    found = cost(graph)
    assert [operation.kind for operation in graph.operations] == ["RELU", "LOCAL_RESPONSE_NORMALIZATION"]
    assert not any(operation.custom for operation in graph.operations)
    assert (found.parameters, found.macs, found.uncounted) == (0, 0, ())
    assert found.operations[-1].field is not None
    assert found.operations[-1].field.pixels == (field, field)


@pytest.mark.parametrize("across", ["channels", "space"])
def test_int8_is_all_integers_and_close_to_float(across, tmp_path: Path):
    from emb.export import tflite
    from emb.export.tflite import read_graph, type_name
    from emb.quantize import SCHEMES, quantize_tflite

    model = _model(across)
    images = np.random.default_rng(0).integers(0, 256, (32, 12, 12, 16)).astype(np.uint8)
    tflite.export(model, tmp_path / "float.tflite")
    quantize_tflite(
        tmp_path / "float.tflite", tmp_path / "int8.tflite", scheme=SCHEMES.get("int8").SCHEME, calibration=images
    )
    kinds = {type_name(tensor.type) for tensor in read_graph(tmp_path / "int8.tflite").tensors}
    assert kinds == {"int8", "int32"}
    expected = np.asarray(model(images.astype(np.float32)))
    error = _run(tmp_path / "int8.tflite", images) - expected
    # 0.0086 and 0.0106 here; rounding the output alone would cost 0.004.
    assert np.sqrt(np.mean(error**2)) / expected.std() < 0.015


def _run(path, images):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    given_tensor, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = result["quantization"]
    rows = []
    for image in images:
        interpreter.set_tensor(given_tensor["index"], (image.astype(np.int16) - 128).astype(np.int8)[np.newaxis])
        interpreter.invoke()
        rows.append((interpreter.get_tensor(result["index"])[0].astype(np.float64) - zero_point) * scale)
    return np.array(rows)
