"""Every builder of the registry: shapes, probabilities, determinism, and what it refuses."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from emb.errors import SpecError
from emb.zoo import ZOO, check_arguments

DIGITS = {"input_shape": (28, 28, 1), "classes": 10}

# More than a hundred layers: seconds each time that they are built with weights.
_LARGE = {"densenet", "googlenet", "inception-v2", "inception-v3", "inception-v4"}
WITH_WEIGHTS = [pytest.param(name, marks=pytest.mark.slow) if name in _LARGE else name for name in ZOO.names()]


def _build(name, *, seed=0, **arguments):
    import keras

    keras.utils.set_random_seed(seed)
    return ZOO.get(name).build(**{**DIGITS, **arguments})


def _narrow(name):
    """What makes any builder's network small enough to be built often."""
    return {"width": 0.25} if "width" in inspect.signature(ZOO.get(name).build).parameters else {}


@cache
def _digits_network(name):
    """Narrow, for 28x28x1 and 10 classes; built once, with weights. Nobody may change it."""
    return _build(name, **_narrow(name))


def _other_network(outline, name):
    return outline(name, input_shape=(32, 40, 3), classes=2, **_narrow(name))


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_model_turns_raw_pixels_into_probabilities(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.float32)
    scores = np.asarray(_digits_network(name)(images, training=False))
    assert scores.shape == (3, 10)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO.names())
def test_model_begins_with_a_rescaling_without_offset_and_ends_in_scores(name, outline):
    layers = _other_network(outline, name).layers
    assert layers[0].name == "pixels"
    assert type(layers[1]).__name__ == "Rescaling"
    assert layers[1].scale == 1 / 255
    assert layers[1].offset == 0
    assert layers[-1].name == "scores"


@pytest.mark.parametrize("name", ZOO.names())
def test_other_sizes_channels_and_classes(name, outline):
    model = _other_network(outline, name)
    assert model.input_shape == (None, 32, 40, 3)
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_one_seed_gives_one_model_and_names_do_not_depend_on_what_was_built_before(name):
    first, second = _digits_network(name), _build(name, **_narrow(name))
    assert first.to_json() == second.to_json()
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in ZOO.names() if name not in _LARGE])
def test_another_seed_gives_another_model(name):
    first, other = _digits_network(name), _build(name, seed=1, **_narrow(name))
    kernels = [(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True) if a.ndim > 1]
    assert kernels
    assert not any(np.array_equal(a, b) for a, b in kernels)


@pytest.mark.parametrize("name", ZOO.names())
def test_signature_is_the_contract(name):
    parameters = inspect.signature(ZOO.get(name).build).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    own = [parameter for key, parameter in parameters.items() if key not in ("input_shape", "classes")]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in own)
    assert ZOO.help(name).endswith(".")


@pytest.mark.parametrize("name", [name for name in ZOO.names() if hasattr(ZOO.get(name), "stem")])
def test_stem_says_how_small_images_differ(name):
    stem = ZOO.get(name).stem
    defaults = [key for key in inspect.signature(stem).parameters if key != "input_shape"]
    known = inspect.signature(ZOO.get(name).build).parameters
    arguments = {key: known[key].default for key in defaults if key in known}
    assert stem((32, 32, 3), **arguments)
    assert stem((96, 64, 3), **arguments)


@pytest.mark.parametrize("name", ZOO.names())
def test_one_class_is_refused(name):
    with pytest.raises(SpecError) as caught:
        _build(name, classes=1)
    assert str(caught.value) == (
        "a classifier needs at least 2 classes, not 1\n"
        "  why: with fewer there is nothing to tell apart\n"
        "  fix: give a data set whose train images have two or more different labels"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_smallest_input_is_named_and_builds_and_one_less_is_refused(name, outline):
    smallest = _smallest(outline, name)
    model = outline(name, input_shape=(smallest, smallest, 1), classes=10, **_narrow(name))
    assert model.output_shape == (None, 10)
    if smallest > 1:
        with pytest.raises(SpecError) as caught:
            _build(name, input_shape=(smallest, smallest - 1, 1))
        assert f" cannot take images of {smallest}x{smallest - 1} pixels" in caught.value.what
        assert caught.value.fix == f"set input.shape to [{smallest}, {smallest}, 1] or more"


def _smallest(outline, name):
    """What the refusal of a single pixel says; 1 if that is not refused."""
    try:
        outline(name, input_shape=(1, 1, 1), classes=10, **_narrow(name))
    except SpecError as error:
        return int(re.fullmatch(r".* need at least (\d+)x\1", error.why)[1])
    return 1


@pytest.mark.parametrize("name", [name for name in ZOO.names() if _narrow(name)])
def test_width_that_leaves_nothing_is_refused(name):
    with pytest.raises(SpecError, match=r"a width of 1e-06 leaves the layer \w+ without channels"):
        _build(name, width=1e-6)
    for width in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="width must be above 0, not"):
            _build(name, width=width)


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("lenet", {}, 61_706),
        ("lenet", {"activation": "tanh", "pooling": "average"}, 61_706),
        ("lenet", {"variant": "caffe"}, 431_080),
        # 3 and 8 maps, 60 and 42 units: 78 + 608 + 12,060 + 2,562 + 430.
        ("lenet", {"width": 0.5}, 15_738),
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
        "  why: varient is unknown; did you mean 'variant'? known: activation, pooling, variant, width\n"
        "       activation cannot be 'rleu'; did you mean 'relu'? known: relu, tanh\n"
        "       classes follows from the data and the recipe's [input]\n"
        "  fix: correct [model.arguments]; lenet takes variant ('lenet5', 'caffe'), activation ('relu', 'tanh'), "
        "pooling ('max', 'average'), width (float)"
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
