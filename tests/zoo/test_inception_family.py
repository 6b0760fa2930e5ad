"""The inception family against its papers: parameters, multiplications, sizes of maps, and keras.applications."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from emb.errors import SpecError
from emb.zoo import ZOO, check_arguments

# Deep graphs: a second each. `make test-fast` has tests/zoo/test_zoo.py for every builder.
pytestmark = pytest.mark.slow

FAMILY = ("googlenet", "inception-v2", "inception-v3", "inception-v4")
SIDES = {"googlenet": 224, "inception-v2": 224, "inception-v3": 299, "inception-v4": 299}
FIRST_BLOCKS = {
    "googlenet": "inception3a",
    "inception-v2": "inception3a",
    "inception-v3": "mixed0",
    "inception-v4": "a1",
}


@pytest.fixture
def build(outline):
    """A network of the family without weights, narrow unless `width` is given."""

    def build(name, side=32, *, channels=3, classes=10, width=0.125, **arguments):
        return outline(name, input_shape=(side, side, channels), classes=classes, width=width, **arguments)

    return build


def _maps(model, layer):
    return tuple(model.get_layer(layer).output.shape[1:])


def _kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def _trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)


@dataclass(frozen=True)
class Published:
    parameters: int
    trainable: int
    macs: int
    maps: dict[str, tuple[int, ...]]
    convolutions: tuple[tuple[int, int], ...]  # (side of the output, weights)


def _published(build, name, **arguments):
    """What is known of the full network."""
    from emb.graph.cost import cost
    from emb.graph.keras import read

    model = build(name, SIDES[name], classes=1000, width=1.0, **arguments)
    graph = read(model)
    convolutions = [operation for operation in graph.operations if operation.kind.endswith("CONV_2D")]
    return Published(
        parameters=model.count_params(),
        trainable=_trainable(model),
        macs=cost(graph).macs,
        maps={layer.name: tuple(layer.output.shape[1:]) for layer in model.layers if layer.name != "pixels"},
        convolutions=tuple(
            (graph.tensors[one.outputs[0]].shape[1], graph.tensors[one.inputs[1]].elements) for one in convolutions
        ),
    )


# Caffe counts all weights, keras.applications moving means and variances too, timm only what is trained.
def test_parameters_as_published(build):
    assert _published(build, "googlenet").parameters == 6_998_552
    assert _published(build, "googlenet", auxiliary=True).parameters == 13_378_280
    assert _published(build, "inception-v2").trainable == 11_188_288
    assert _published(build, "inception-v3").parameters == 23_851_784
    assert _published(build, "inception-v4").trainable == 42_679_816


@pytest.mark.parametrize(("name", "macs"), [("inception-v3", 5.7e9), ("inception-v4", 12.3e9)])
def test_macs_as_published(build, name, macs):
    assert _published(build, name).macs == pytest.approx(macs, rel=0.02)


def test_googlenets_published_macs_are_those_of_poolings_that_round_down(build):
    """1.43 G (Sze et al. 2017, table II) follow from the same weights on 55, 27, 13 and 6 pixels instead of the
    paper's 56, 28, 14 and 7; the paper's own table sums to 1.50 G, with a first convolution that is separable."""
    convolutions = _published(build, "googlenet").convolutions
    assert len(convolutions) == 57
    rounded_down = {112: 112, 56: 55, 28: 27, 14: 13, 7: 6}
    assert sum(rounded_down[side] ** 2 * weights for side, weights in convolutions) == pytest.approx(1.43e9, rel=1e-3)
    separable = 112**2 * (7 * 7 * 3 * 8 + 3 * 8 * 64)
    whole = sum(side**2 * weights for side, weights in convolutions)
    assert whole == _published(build, "googlenet").macs - 1024 * 1000
    assert whole - 112**2 * 7 * 7 * 3 * 64 + separable == pytest.approx(1.50e9, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        (
            "googlenet",
            {
                "conv1": (112, 112, 64), "pool1": (56, 56, 64), "conv2": (56, 56, 192), "pool2": (28, 28, 192),
                "inception3a": (28, 28, 256), "inception3b": (28, 28, 480), "pool3": (14, 14, 480),
                "inception4a": (14, 14, 512), "inception4b": (14, 14, 512), "inception4c": (14, 14, 512),
                "inception4d": (14, 14, 528), "inception4e": (14, 14, 832), "pool4": (7, 7, 832),
                "inception5a": (7, 7, 832), "inception5b": (7, 7, 1024), "mean": (1024,),
            },
        ),
        (
            "inception-v2",
            {
                "conv1": (112, 112, 64), "pool1": (56, 56, 64), "conv2": (56, 56, 192), "pool2": (28, 28, 192),
                "inception3a": (28, 28, 256), "inception3b": (28, 28, 320), "inception3c": (14, 14, 576),
                "inception4a": (14, 14, 576), "inception4b": (14, 14, 576), "inception4c": (14, 14, 576),
                "inception4d": (14, 14, 576), "inception4e": (7, 7, 1024), "inception5a": (7, 7, 1024),
                "inception5b": (7, 7, 1024),
            },
        ),
        (
            "inception-v3",
            {
                "stem_c_3x3": (147, 147, 64), "stem_g_max": (35, 35, 192), "mixed0": (35, 35, 256),
                "mixed2": (35, 35, 288), "mixed3": (17, 17, 768), "mixed7": (17, 17, 768), "mixed8": (8, 8, 1280),
                "mixed10": (8, 8, 2048),
            },
        ),
        (
            "inception-v4",
            {
                "stem_c_3x3": (147, 147, 64), "stem_d": (73, 73, 160), "stem_e": (71, 71, 192),
                "stem_f": (35, 35, 384), "a4": (35, 35, 384), "reduction_a": (17, 17, 1024), "b7": (17, 17, 1024),
                "reduction_b": (8, 8, 1536), "c3": (8, 8, 1536),
            },
        ),
    ],
)  # fmt: skip
def test_sizes_of_maps_as_in_the_papers_tables(build, name, maps):
    found = _published(build, name).maps
    assert {layer: found[layer] for layer in maps} == maps


@pytest.mark.slow
@pytest.mark.long
def test_inception_v3_is_that_of_keras_applications():
    import keras

    from emb.zoo._applications import carry_over

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    # Coarse squares: the mean over fine noise is the same for every image.
    images = np.kron(rng.integers(0, 256, (4, 13, 13, 3)), np.ones((1, 23, 23, 1))).astype(np.float32)
    theirs = keras.applications.InceptionV3(weights=None, input_shape=(299, 299, 3))
    _settle(theirs, images / 127.5 - 1, rng)
    ours = ZOO.get("inception-v3").build(input_shape=(299, 299, 3), classes=1000, preprocessing="signed")
    carry_over(theirs, ours)
    expected = np.asarray(theirs(images / 127.5 - 1, training=False))
    # Only answers that differ from image to image can be compared.
    assert len(set(expected.argmax(axis=1))) > 1
    assert expected.max(axis=1).min() > 0.02
    np.testing.assert_allclose(np.asarray(ours(images, training=False)), expected, atol=1e-4)


def _settle(model, images, rng):
    """Give an untrained model random statistics that keep its signal alive, and a last layer that tells images apart.

    images: what the model takes. Every moving mean and variance becomes that of the images, disturbed.
    """
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer in norms:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        layer.beta.assign(rng.normal(0, 0.2, mean.shape))
        layer.moving_mean.assign(mean + rng.normal(0, 0.1, mean.shape) * np.sqrt(variance))
        layer.moving_variance.assign(variance * rng.uniform(0.8, 1.25, mean.shape))
    head = model.layers[-1]
    features = np.asarray(keras.Model(model.inputs, head.input)([images]))
    scale = np.sqrt(((features - features.mean(axis=0)) ** 2).sum(axis=1).mean())
    kernel = rng.normal(0, 3 / scale, head.kernel.shape)
    head.kernel.assign(kernel)
    head.bias.assign(-features.mean(axis=0) @ kernel)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("side", "first"), [(28, 28), (32, 32), (64, 32), (96, 48)])
def test_small_images_are_halved_less(build, name, side, first):
    model = build(name, side, channels=1 if side == 28 else 3, classes=7)
    assert model.output_shape == (None, 7)
    assert _maps(model, FIRST_BLOCKS[name])[:2] == (first, first)
    assert min(_maps(model, model.layers[-4].name)[:2]) >= 6


@pytest.mark.parametrize("name", FAMILY)
def test_the_beginning_is_stated(name):
    stem = ZOO.get(name).stem
    side = SIDES[name]
    assert stem((side, side, 3)).startswith("as published: ")
    assert stem((64, 96, 3), width=0.5).startswith("for 48 to 127 pixels: ")
    assert stem((28, 28, 1)).startswith("for less than 48 pixels: ")


@pytest.mark.parametrize("name", FAMILY)
def test_smallest_input_is_exact(build, name):
    smallest = {"googlenet": 3, "inception-v2": 3, "inception-v3": 7, "inception-v4": 7}[name]
    assert build(name, smallest).output_shape == (None, 10)
    with pytest.raises(SpecError) as caught:
        build(name, smallest - 1)
    assert str(caught.value) == (
        f"{name} cannot take images of {smallest - 1}x{smallest - 1} pixels\n"
        f"  why: its convolutions and poolings need at least {smallest}x{smallest}\n"
        f"  fix: set input.shape to [{smallest}, {smallest}, 3] or more"
    )


def test_auxiliary_classifiers_need_more_pixels(build):
    assert len(build("googlenet", 9, auxiliary=True).outputs) == 3
    with pytest.raises(SpecError, match="cannot take images of 8x8 pixels"):
        build("googlenet", 8, auxiliary=True)


@pytest.mark.parametrize("name", FAMILY)
def test_input_that_is_no_image(name):
    with pytest.raises(SpecError, match=r"the input shape \(28, 28\) is not \(height, width, channels\)"):
        ZOO.get(name).build(input_shape=(28, 28), classes=10)


def test_width_scales_every_channel_count(build):
    model = build("googlenet", width=0.5, auxiliary=True)
    assert _maps(model, "inception3a") == (32, 32, 128)
    assert _maps(model, "inception5b") == (8, 8, 512)
    assert _maps(model, "auxiliary1_conv") == (4, 4, 64)
    assert _maps(model, "auxiliary1_dense") == (512,)


def test_a_width_that_empties_a_layer(build):
    with pytest.raises(SpecError) as caught:
        build("googlenet", width=0.02)
    assert str(caught.value) == (
        "a width of 0.02 leaves the layer inception3a_3a_1x1 without channels\n"
        "  why: it has 16 at width 1\n"
        "  fix: give model.arguments.width of at least 0.032"
    )
    assert build("googlenet", width=0.032).output_shape == (None, 10)


def test_auxiliary_classifiers_are_outputs_after_the_first_and_can_be_cut_off(build):
    import keras

    plain, model = build("googlenet"), build("googlenet", auxiliary=True)
    assert len(plain.outputs) == 1
    assert not [layer.name for layer in plain.layers if "auxiliary" in layer.name]
    assert [output.shape for output in model.outputs] == [(None, 10)] * 3
    assert model.output_names == ["scores", "auxiliary1", "auxiliary2"]
    assert model.get_layer("auxiliary1_dropout").rate == 0.7
    assert model.get_layer("auxiliary1_pool").input is model.get_layer("inception4a").output
    assert model.get_layer("auxiliary2_pool").input is model.get_layer("inception4d").output
    assert keras.Model(model.inputs, model.outputs[0]).count_params() == plain.count_params()


def test_naive_block_has_no_bottleneck_and_passes_its_pooling_on(build):
    model = build("googlenet", block="naive")
    assert _maps(model, "inception3a") == (32, 32, (64 + 128 + 32 + 192) // 8)
    ends = ["inception3a_1a_1x1_relu", "inception3a_2a_3x3_relu", "inception3a_3a_5x5_relu", "inception3a_4a_max"]
    inputs = model.get_layer("inception3a").input
    assert all(one is model.get_layer(end).output for one, end in zip(inputs, ends, strict=True))
    assert model.get_layer("inception3b_3a_5x5").kernel.shape == (5, 5, 416 // 8, 96 // 8)


@pytest.mark.parametrize(("normalization", "response", "batch"), [("lrn", 2, 0), ("batch", 0, 57), ("none", 0, 0)])
def test_normalization_of_googlenet(build, normalization, response, batch):
    model = build("googlenet", normalization=normalization)
    kinds = _kinds(model)
    assert kinds.count("LocalResponseNormalization") == response
    assert kinds.count("BatchNormalization") == batch
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert {layer.use_bias for layer in convolutions} == {normalization != "batch"}


def test_googlenets_lrn_is_that_of_caffe(build):
    norm = build("googlenet").get_layer("norm1")
    assert (norm.depth_radius, norm.k, norm.beta) == (2, 1, 0.75)
    assert norm.alpha == pytest.approx(1e-4 / 5)


@pytest.mark.parametrize("name", FAMILY)
def test_dropout_out_of_range(build, name):
    with pytest.raises(SpecError) as caught:
        build(name, dropout=1.0)
    assert str(caught.value) == (
        "dropout must be from 0 to below 1, not 1\n"
        "  why: it is the share of values that a training step sets to zero\n"
        "  fix: correct model.arguments.dropout"
    )


def test_dropout_as_published_or_none(build):
    assert build("googlenet").get_layer("dropout").rate == 0.4
    assert "Dropout" not in _kinds(build("googlenet", dropout=0.0))


def test_unknown_choices(build):
    with pytest.raises(SpecError) as caught:
        check_arguments("googlenet", {"block": "niave", "normalization": "bn", "auxiliary": 1})
    assert str(caught.value) == (
        "the model 'googlenet' cannot be built with these arguments\n"
        "  why: block cannot be 'niave'; did you mean 'naive'? known: bottleneck, naive\n"
        "       normalization cannot be 'bn'; known: batch, lrn, none\n"
        "       auxiliary must be of type bool, not 1\n"
        "  fix: correct [model.arguments]; googlenet takes width (float), block ('bottleneck', 'naive'), auxiliary "
        "(bool), dropout (float), normalization ('lrn', 'batch', 'none'), preprocessing ('unit', 'signed', "
        "'imagenet', 'caffe')"
    )
    with pytest.raises(SpecError, match="block cannot be 'niave'"):
        build("googlenet", block="niave")


def test_stating_the_beginning_imports_no_keras():
    code = (
        "import sys; from emb.zoo import ZOO\n"
        f"[ZOO.get(name).stem((32, 32, 3)) for name in {FAMILY}]\n"
        "sys.exit(any(heavy in sys.modules for heavy in ('keras', 'tensorflow', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
