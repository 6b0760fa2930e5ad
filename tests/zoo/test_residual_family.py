"""ResNet and DenseNet: published counts, the same answers as keras.applications, every input size, what is refused."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from emb.errors import SpecError
from emb.graph.cost import cost
from emb.graph.keras import read
from emb.zoo import densenet, resnet
from emb.zoo._applications import carry_over

# Deep graphs: a second each. `make test-fast` has tests/zoo/test_zoo.py for every builder.
pytestmark = pytest.mark.slow

FAMILIES = {"resnet": resnet, "densenet": densenet}
SMALL = {"input_shape": (32, 32, 3), "classes": 10}
LARGE = {"input_shape": (224, 224, 3), "classes": 1000}


def _kinds(model):
    return {type(layer).__name__ for layer in model.layers}


# He et al. 2015, table 6 (option A): 0.27, 0.46, 0.66, 0.85 and 1.7 million for 20 to 110.
# Trainable parameters: kernels, the dense layer's biases, the normalizations' scales and shifts.
PARAMETERS = [
    ("resnet", SMALL, {"depth": 20, "shortcut": "identity"}, 269_722),
    ("resnet", SMALL, {"depth": 20}, 272_474),
    ("densenet", SMALL, {"depth": 40}, 176_122),
    ("resnet", SMALL, {"depth": 32, "shortcut": "identity"}, 464_154),
    ("resnet", SMALL, {"depth": 44, "shortcut": "identity"}, 658_586),
    ("resnet", SMALL, {"depth": 56, "shortcut": "identity"}, 853_018),
    ("resnet", SMALL, {"depth": 110, "shortcut": "identity"}, 1_727_962),
    ("resnet", LARGE, {"depth": 18}, 11_689_512),
    ("resnet", LARGE, {"depth": 34}, 21_797_672),
    ("resnet", LARGE, {"depth": 50}, 25_557_032),
    ("resnet", LARGE, {"depth": 101}, 44_549_160),
    ("resnet", LARGE, {"depth": 152}, 60_192_808),
    ("densenet", SMALL, {"depth": 100}, 769_162),
    ("densenet", LARGE, {"depth": 121}, 7_978_856),
    ("densenet", LARGE, {"depth": 169}, 14_149_480),
    ("densenet", LARGE, {"depth": 201}, 20_013_928),
    ("densenet", LARGE, {"depth": 264}, 33_337_704),
]

# As published: He et al. 2015, table 1, and for ResNet-50 the 3.86 G of Sze et al. 2017, table II; for DenseNet-121 the
# 2.87 G that PaddleClas lists as FLOPs, without saying what it counts. torchvision lists 2.834 G, which the graph has.
GIGA_MACS = [
    ("resnet", 18, 1.8),
    ("resnet", 34, 3.6),
    ("resnet", 50, 3.86),
    ("resnet", 101, 7.6),
    ("resnet", 152, 11.3),
    ("densenet", 121, 2.87),
]


@pytest.mark.parametrize(("name", "shape", "arguments", "parameters"), PARAMETERS)
def test_trainable_parameters_as_published(name, shape, arguments, parameters, outline):
    model = outline(name, **shape, **arguments)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == parameters


def test_resnet8_is_that_of_mlperf_tiny():
    model = resnet.build(**SMALL, depth=8)
    assert model.count_params() == 78_666
    assert cost(read(model)).macs == 12_501_632
    projections = [layer for layer in model.layers if layer.name.endswith("_shortcut")]
    assert [(layer.kernel_size, layer.strides, layer.use_bias) for layer in projections] == [((1, 1), (2, 2), True)] * 2
    assert {layer.epsilon for layer in model.layers if type(layer).__name__ == "BatchNormalization"} == {1e-3}
    kernels = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert len(kernels) == 9
    assert {type(layer.kernel_initializer).__name__ for layer in kernels} == {"HeNormal"}


@pytest.mark.parametrize(("name", "depth", "giga"), GIGA_MACS)
def test_macs_within_two_percent_of_the_published(name, depth, giga, outline):
    assert cost(read(outline(name, **LARGE, depth=depth))).macs / 1e9 == pytest.approx(giga, rel=0.02)


@pytest.mark.parametrize("depth", [8, 20, 18])
def test_plain_network_has_the_same_depth_and_no_shortcut(depth):
    plain = resnet.build(**SMALL, depth=depth, shortcut="none", width=0.25)
    residual = resnet.build(**SMALL, depth=depth, shortcut="identity", width=0.25)
    assert "Add" not in _kinds(plain)
    assert "Add" in _kinds(residual)
    # Option A has no weights of its own.
    assert [weight.shape for weight in plain.weights] == [weight.shape for weight in residual.weights]
    weighted = [layer for layer in plain.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    assert len(weighted) == depth


def test_plain_bottlenecks():
    model = resnet.build(**SMALL, depth=50, shortcut="none", width=0.1)
    assert "Add" not in _kinds(model)
    assert sum(type(layer).__name__ in ("Conv2D", "Dense") for layer in model.layers) == 50


def test_identity_shortcut_subsamples_and_fills_up_with_zeros():
    import keras

    model = resnet.build(**SMALL, depth=8, shortcut="identity")
    before = model.get_layer("stage2_block1_subsample").input
    bridge = keras.Model(model.input, [before, model.get_layer("stage2_block1_fill").output])
    given, filled = map(np.asarray, bridge(np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))))
    np.testing.assert_array_equal(filled[..., :16], given[:, ::2, ::2])
    np.testing.assert_array_equal(filled[..., 16:], np.zeros((1, 16, 16, 16)))
    assert given.any()


def test_identity_shortcut_survives_a_file(tmp_path):
    import keras

    model = resnet.build(**SMALL, depth=8, shortcut="identity", width=0.25)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    read_back = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(read_back(images)), np.asarray(model(images)))


@pytest.mark.parametrize(("depth", "last"), [(20, "bn2"), (50, "bn3")])
def test_blocks_that_begin_as_their_shortcut(depth, last):
    import keras

    model = resnet.build(**SMALL, depth=depth, width=0.1, residual_scale=0)
    scales = {layer.name: np.asarray(layer.gamma) for layer in model.layers if "_bn" in layer.name}
    assert all(
        (scale == (0 if name.endswith(last) else 1)).all() for name, scale in scales.items() if "short" not in name
    )
    block = "stage1_block2"
    before = model.get_layer("stage1_block1_relu").output
    ends = keras.Model(model.input, [before, model.get_layer(f"{block}_relu").output])
    given, result = map(np.asarray, ends(np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))))
    np.testing.assert_array_equal(result, given)
    assert given.any()


def test_residual_scales_that_cannot_be():
    with pytest.raises(SpecError) as caught:
        resnet.build(**SMALL, residual_scale=-0.5)
    assert str(caught.value) == (
        "residual_scale must be 0 or more, not -0.5\n"
        "  fix: 1 is the usual one, 0 makes each block begin as its shortcut"
    )
    with pytest.raises(SpecError) as caught:
        resnet.build(**SMALL, depth=20, shortcut="none", residual_scale=0)
    assert str(caught.value) == (
        "a plain network cannot begin with a residual_scale of 0\n"
        "  why: without shortcuts nothing would pass its first block\n"
        "  fix: leave model.arguments.residual_scale out"
    )


def test_projection_only_where_the_shape_changes():
    assert _projections(resnet.build(**SMALL, depth=18, width=0.1)) == ["stage2", "stage3", "stage4"]
    # The first bottleneck of the first stage widens.
    assert _projections(resnet.build(**SMALL, depth=50, width=0.1)) == ["stage1", "stage2", "stage3", "stage4"]


def _projections(model):
    return sorted(layer.name.split("_")[0] for layer in model.layers if layer.name.endswith("_shortcut"))


@pytest.mark.parametrize(
    ("name", "depth"),
    [("resnet", 8), ("resnet", 18), ("densenet", 40)],
)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3), (64, 64, 3), (96, 96, 1), (224, 224, 3)])
def test_any_image_and_number_of_classes(name, depth, shape):
    model = FAMILIES[name].build(input_shape=shape, classes=3, depth=depth, width=0.1)
    assert model.output_shape == (None, 3)
    scores = np.asarray(model(np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)))
    np.testing.assert_allclose(scores.sum(), 1, atol=1e-5)


@pytest.mark.parametrize(("side", "last"), [(28, 4), (32, 4), (64, 4), (96, 6), (224, 7)])
@pytest.mark.parametrize(("name", "depth"), [("resnet", 50), ("densenet", 121)])
def test_the_last_map_keeps_some_pixels(name, depth, side, last, outline):
    model = outline(name, input_shape=(side, side, 3), classes=2, depth=depth, width=0.1)
    # DenseNet's poolings round down where ResNet's strides round up.
    assert model.get_layer("average_pool").input.shape[1] == (3 if (name, side) == ("densenet", 28) else last)


@pytest.mark.parametrize(
    ("name", "depth", "smallest"), [("resnet", 8, 4), ("resnet", 18, 8), ("densenet", 40, 4), ("densenet", 121, 8)]
)
def test_smallest_input_is_exact(name, depth, smallest, request):
    build = FAMILIES[name].build
    with pytest.raises(SpecError) as caught:
        build(input_shape=(smallest - 1, smallest, 3), classes=2, depth=depth, width=0.1)
    assert str(caught.value) == (
        f"{name}-{depth} cannot take images of {smallest - 1}x{smallest} pixels\n"
        f"  why: its convolutions and poolings need at least {smallest}x{smallest}\n"
        f"  fix: set input.shape to [{smallest}, {smallest}, 3] or more"
    )
    if depth == 121:
        return  # a network of this depth takes seconds to build; depth 40 is the same code
    model = build(input_shape=(smallest, smallest, 3), classes=2, depth=depth, width=0.1)
    assert model.get_layer("average_pool").input.shape[1:3] == (1, 1)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pooled"),
    [((28, 28, 1), 3, 1, False), ((47, 60, 3), 3, 1, False), ((48, 48, 3), 7, 2, False), ((96, 96, 3), 7, 2, False),
     ((127, 200, 3), 7, 2, False), ((128, 128, 3), 7, 2, True)],
)  # fmt: skip
def test_beginning_follows_the_image(shape, kernel, stride, pooled):
    model = resnet.build(input_shape=shape, classes=2, depth=18, width=0.05)
    first = model.get_layer("conv1")
    assert (first.kernel_size[0], first.strides[0]) == (kernel, stride)
    assert ("MaxPooling2D" in _kinds(model)) == pooled
    said = resnet.stem(shape, depth=18, width=0.05)
    assert said == densenet.stem(shape, depth=121)
    assert said.startswith(f"{kernel}x{kernel} convolution with stride {stride}")
    assert ("no pooling" not in said) == pooled


@pytest.mark.parametrize(("family", "depth"), [(resnet, 8), (resnet, 110), (densenet, 40)])
def test_networks_for_32x32_begin_the_same_at_every_size(family, depth):
    name = family.__name__.rpartition(".")[2]
    assert family.stem((224, 224, 3), depth=depth) == (
        f"3x3 convolution with stride 1, no pooling: as published for {name}-{depth}, which was made for 32x32"
    )
    if depth < 100:
        model = family.build(input_shape=(224, 224, 3), classes=2, depth=depth, width=0.1)
        assert model.get_layer("conv1").output.shape[1] == 224


def test_width_that_empties_a_layer():
    with pytest.raises(SpecError) as caught:
        resnet.build(**SMALL, depth=8, width=0.01)
    assert str(caught.value) == (
        "a width of 0.01 leaves the layer conv1 without channels\n"
        "  why: it has 16 at width 1\n"
        "  fix: give model.arguments.width of at least 0.032"
    )
    with pytest.raises(SpecError, match=r"a width of 0\.01 leaves the layer block1_layer1_conv2 without channels"):
        densenet.build(**SMALL, depth=40, width=0.01)


@pytest.mark.parametrize(("family", "depth", "width"), [(resnet, 8, 0.032), (resnet, 18, 0.008), (densenet, 40, 0.042)])
def test_narrowest_network(family, depth, width):
    model = family.build(**SMALL, depth=depth, width=width)
    assert min(layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D") == 1


def test_unknown_depth():
    with pytest.raises(SpecError) as caught:
        resnet.build(**SMALL, depth=51)
    assert str(caught.value) == (
        "there is no resnet of depth 51\n"
        "  why: the published ones have 18 to 152 layers for large images, 6 n + 2 for small ones\n"
        "  fix: set model.arguments.depth to one of 8, 20, 32, 44, 56, 110, 18, 34, 50, 101, 152"
    )
    with pytest.raises(SpecError) as caught:
        densenet.build(**SMALL, depth=120)
    assert str(caught.value) == (
        "there is no densenet of depth 120\n"
        "  why: the published ones have 121 to 264 layers for large images, 40 or 100 for small ones\n"
        "  fix: set model.arguments.depth to one of 40, 100, 121, 169, 201, 264"
    )


def test_unknown_shortcut_and_negative_growth():
    with pytest.raises(SpecError, match="shortcut cannot be 'add'"):
        resnet.build(**SMALL, shortcut="add")
    with pytest.raises(SpecError, match="growth cannot be -1"):
        densenet.build(**SMALL, growth=-1)


def test_growth_is_what_each_layer_adds():
    model = densenet.build(**SMALL, depth=40, growth=5)
    assert model.get_layer("conv1").filters == 10
    assert model.get_layer("block1_layer6_concat").output.shape[-1] == 10 + 6 * 5
    assert model.get_layer("transition1_conv").filters == 20
    assert model.get_layer("block2_layer1_conv1").filters == 4 * 5


@pytest.mark.parametrize(
    ("name", "depth", "preprocessing", "head_scale"),
    [
        ("ResNet", 50, "caffe", 1),
        ("DenseNet", 121, "imagenet", 15),
        *(
            pytest.param(*row, marks=pytest.mark.long)
            for row in [
                ("ResNet", 101, "caffe", 1),
                ("ResNet", 152, "caffe", 1),
                ("DenseNet", 169, "imagenet", 15),
                ("DenseNet", 201, "imagenet", 15),
            ]
        ),
    ],
)
def test_same_answers_as_keras_applications(name, depth, preprocessing, head_scale):
    """Its weights, drawn from a seed, and moving statistics that do something; raw pixels for ours.

    head_scale: factor of the last kernel that brings the scores away from both 1/1000 each and all for one class.
    """
    import keras

    keras.utils.set_random_seed(depth)
    theirs = getattr(keras.applications, f"{name}{depth}")(weights=None)
    _randomise(theirs)
    head = theirs.layers[-1].kernel
    head.assign(head * head_scale)
    ours = FAMILIES[name.lower()].build(**LARGE, depth=depth, preprocessing=preprocessing)
    carry_over(theirs, ours, reverse_channels=preprocessing == "caffe")

    images = np.random.default_rng(depth).integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    images[1] = images[1] * [0.1, 0.9, 0.4]  # another colour, so that the two answers differ
    prepared = getattr(keras.applications, name.lower()).preprocess_input(images.copy())
    expected, answers = np.asarray(theirs(prepared)), np.asarray(ours(images))
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    assert expected.max() < 0.99
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    del theirs, ours
    keras.backend.clear_session()
    gc.collect()


def _randomise(model):
    """Biases, scales, shifts and moving statistics, which are zeros and ones in a new model."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name == "gamma":
            variable.assign(rng.uniform(0.5, 1.2, variable.shape))
        elif variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(rng.uniform(-0.2, 0.2, variable.shape))
