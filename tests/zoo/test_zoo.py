"""Every builder of the registry: shapes, probabilities, determinism, and what it refuses."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from emb.errors import SpecError
from emb.zoo import ZOO, check_arguments

DIGITS = {"input_shape": (28, 28, 1), "classes": 10}


def _build(name, *, seed=0, **arguments):
    import keras

    keras.utils.set_random_seed(seed)
    return ZOO.get(name).build(**{**DIGITS, **arguments})


@pytest.mark.parametrize("name", ZOO.names())
def test_model_turns_raw_pixels_into_probabilities(name):
    model = _build(name)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.float32)
    scores = np.asarray(model(images))
    assert scores.shape == (5, 10)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ZOO.names())
def test_model_begins_with_a_rescaling_without_offset(name):
    layers = _build(name).layers
    assert type(layers[1]).__name__ == "Rescaling"
    assert layers[1].scale == 1 / 255
    assert layers[1].offset == 0
    assert layers[-1].name == "scores"


@pytest.mark.parametrize("name", ZOO.names())
def test_other_sizes_channels_and_classes(name):
    model = _build(name, input_shape=(32, 40, 3), classes=2)
    assert model.input_shape == (None, 32, 40, 3)
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize("name", ZOO.names())
def test_one_seed_gives_one_model_and_names_do_not_depend_on_what_was_built_before(name):
    first, second, other = _build(name), _build(name), _build(name, seed=1)
    assert first.to_json() == second.to_json()
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


@pytest.mark.parametrize("name", ZOO.names())
def test_signature_is_the_contract(name):
    parameters = inspect.signature(ZOO.get(name).build).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    own = [parameter for key, parameter in parameters.items() if key not in ("input_shape", "classes")]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in own)
    assert ZOO.help(name).endswith(".")


@pytest.mark.parametrize("name", ZOO.names())
def test_one_class_is_refused(name):
    with pytest.raises(SpecError) as caught:
        _build(name, classes=1)
    assert str(caught.value) == (
        "a classifier needs at least 2 classes, not 1\n"
        "  why: with fewer there is nothing to tell apart\n"
        "  fix: give a data set whose train images have two or more different labels"
    )


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("lenet", {}, 61_706),
        ("lenet", {"activation": "tanh", "pooling": "average"}, 61_706),
        ("lenet", {"variant": "caffe"}, 431_080),
        ("mnist-cnn", {}, 289_630),
        ("mnist-cnn", {"kernels": 4, "units": 10}, 4 * 26 + (12 * 12 * 4 + 1) * 10 + 110),
    ],
)
def test_parameter_counts(name, arguments, parameters):
    assert _build(name, **arguments).count_params() == parameters


def test_lenet_of_1998():
    model = _build("lenet", activation="tanh", pooling="average")
    assert type(model.get_layer("pool1")).__name__ == "AveragePooling2D"
    assert model.get_layer("dense2").activation.__name__ == "tanh"


@pytest.mark.parametrize(
    ("name", "arguments", "smallest"), [("lenet", {}, 12), ("lenet", {"variant": "caffe"}, 16), ("mnist-cnn", {}, 6)]
)
def test_smallest_input_is_exact(name, arguments, smallest):
    assert _build(name, input_shape=(smallest, smallest, 1), **arguments).output_shape == (None, 10)
    with pytest.raises(SpecError, match=f"cannot take images of {smallest - 1}x{smallest} pixels"):
        _build(name, input_shape=(smallest - 1, smallest, 1), **arguments)


def test_too_small_input_message():
    with pytest.raises(SpecError) as caught:
        _build("lenet", input_shape=(8, 28, 1))
    assert str(caught.value) == (
        "lenet (lenet5) cannot take images of 8x28 pixels\n"
        "  why: its convolutions and poolings need at least 12x12\n"
        "  fix: set input.shape to [12, 28, 1] or more"
    )


def test_input_that_is_no_image():
    with pytest.raises(SpecError, match=r"the input shape \(28, 28\) is not \(height, width, channels\)"):
        _build("lenet", input_shape=(28, 28))


def test_no_kernels():
    with pytest.raises(SpecError, match="kernels must be at least 1, not 0"):
        _build("mnist-cnn", kernels=0)


def test_unknown_choice_in_the_builder():
    with pytest.raises(SpecError) as caught:
        _build("lenet", variant="lenet4")
    assert str(caught.value) == (
        "variant cannot be 'lenet4'\n  fix: set model.arguments.variant to one of lenet5, caffe"
    )


def test_good_arguments_pass():
    check_arguments("lenet", {"variant": "caffe", "activation": "tanh"})
    check_arguments("mnist-cnn", {"kernels": 8})
    check_arguments("mnist-cnn", {})


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(SpecError) as caught:
        check_arguments("lenet", {"varient": "caffe", "activation": "rleu", "classes": 3})
    assert str(caught.value) == (
        "the model 'lenet' cannot be built with these arguments\n"
        "  why: varient is unknown; did you mean 'variant'? known: activation, pooling, variant\n"
        "       activation cannot be 'rleu'; did you mean 'relu'? known: relu, tanh\n"
        "       classes follows from the data and the recipe's [input]\n"
        "  fix: correct [model.arguments]; lenet takes variant ('lenet5', 'caffe'), activation ('relu', 'tanh'), "
        "pooling ('max', 'average')"
    )


def test_wrong_type_of_an_argument():
    with pytest.raises(SpecError) as caught:
        check_arguments("mnist-cnn", {"kernels": "20"})
    assert str(caught.value) == (
        "the model 'mnist-cnn' cannot be built with these arguments\n"
        "  why: kernels must be of type int, not '20'\n"
        "  fix: correct [model.arguments]; mnist-cnn takes kernels (int), units (int)"
    )


def test_unknown_builder():
    with pytest.raises(SpecError, match="unknown model 'lenett'"):
        check_arguments("lenett", {})


def test_checking_and_help_import_no_keras():
    code = (
        "import sys; from emb.zoo import ZOO, check_arguments\n"
        "[(check_arguments(name, {}), ZOO.help(name)) for name in ZOO.names()]\n"
        "sys.exit(any(heavy in sys.modules for heavy in ('keras', 'tensorflow', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
