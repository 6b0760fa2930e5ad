"""AlexNet, OverFeat, VGG and the MLP: published counts, the same answers as keras.applications, every input size."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from emb.errors import SpecError
from emb.graph.cost import cost
from emb.graph.keras import read
from emb.zoo import ZOO

# Whole networks: `make test-fast` has tests/zoo/test_zoo.py for every builder.
pytestmark = pytest.mark.slow

IMAGENET = {"classes": 1000}
SMALL = {"input_shape": (32, 32, 3), "classes": 10}

# Trainable parameters: Caffe's bvlc_alexnet; the sum of OverFeat's table 1; torchvision's VGG.
PARAMETERS = [
    ("alexnet", 227, {}, 60_965_224),
    ("alexnet", 227, {"normalization": "lrn-intra", "pooling": "l2"}, 60_965_224),
    ("alexnet", 227, {"groups": "split"}, 60_965_224),
    ("alexnet", 227, {"normalization": "batch"}, 60_965_224 + 2 * (96 + 256 + 384 + 384 + 256)),
    ("overfeat", 231, {}, 145_920_872),
    ("vgg", 224, {"depth": 11}, 132_863_336),
    ("vgg", 224, {"depth": 13}, 133_047_848),
    ("vgg", 224, {}, 138_357_544),
    ("vgg", 224, {"depth": 19}, 143_667_240),
    ("vgg", 224, {"depth": 11, "batch_norm": True}, 132_868_840),
    ("vgg", 224, {"depth": 13, "batch_norm": True}, 133_053_736),
    ("vgg", 224, {"depth": 16, "batch_norm": True}, 138_365_992),
    ("vgg", 224, {"depth": 19, "batch_norm": True}, 143_678_248),
]


@pytest.mark.parametrize(("name", "side", "arguments", "parameters"), PARAMETERS)
def test_published_parameters(name, side, arguments, parameters, outline):
    model = outline(name, input_shape=(side, side, 3), **IMAGENET, **arguments)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == parameters


# The lecture's summary tables: of the convolutions, of the dense layers.
@pytest.mark.parametrize(
    ("name", "side", "convolutional", "dense"),
    [("alexnet", 227, 666e6, 58.6e6), ("overfeat", 231, 2.67e9, 130e6), ("vgg", 224, 15.3e9, 124e6)],
)
def test_published_macs(name, side, convolutional, dense, outline):
    graph = read(outline(name, input_shape=(side, side, 3), **IMAGENET))
    found = cost(graph)
    assert found.uncounted == ()
    for kind, published in (("CONV_2D", convolutional), ("FULLY_CONNECTED", dense)):
        macs = sum(row.macs for row in found.operations if graph.operations[row.number].kind == kind)
        assert macs == pytest.approx(published, rel=0.02)


def test_first_convolution_of_alexnet_as_the_lecture_computes_it(outline):
    graph = read(outline("alexnet", input_shape=(227, 227, 3), **IMAGENET))
    rows = {graph.operations[row.number].name: row for row in cost(graph).operations}
    assert rows["conv1"].macs == 11 * 11 * 3 * 55 * 55 * 96 == 105_415_200


def test_extents_of_the_papers(outline):
    alexnet = outline("alexnet", input_shape=(227, 227, 3), **IMAGENET)
    assert [alexnet.get_layer(f"pool{number}").output.shape[1] for number in (1, 2, 5)] == [27, 13, 6]
    assert [alexnet.get_layer(f"conv{number}").groups for number in range(1, 6)] == [1, 2, 1, 2, 2]
    overfeat = outline("overfeat", input_shape=(231, 231, 3), **IMAGENET)
    assert [overfeat.get_layer(f"conv{number}").output.shape[1] for number in range(1, 6)] == [56, 24, 12, 12, 12]
    assert overfeat.get_layer("pool5").output.shape == (None, 6, 6, 1024)
    vgg = outline("vgg", input_shape=(224, 224, 3), **IMAGENET)
    assert [vgg.get_layer(f"stage{stage}_pool").output.shape[1] for stage in range(1, 6)] == [112, 56, 28, 14, 7]


def test_alexnet_normalizes_behind_relu_and_pools_overlapping(outline):
    names = [layer.name for layer in outline("alexnet", **SMALL).layers]
    assert names[2:7] == ["conv1", "relu1", "norm1", "pool1", "conv2"]
    norm = outline("alexnet", **SMALL).get_layer("norm2")
    assert (norm.depth_radius, norm.k, norm.alpha, norm.beta, norm.across) == (2, 2.0, 1e-4, 0.75, "channels")
    pool = outline("alexnet", **SMALL).get_layer("pool2")
    assert (pool.pool_size, pool.strides) == ((3, 3), (2, 2))


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ({"normalization": "lrn-intra"}, {"LocalResponseNormalization", "MaxPooling2D"}),
        ({"normalization": "batch"}, {"BatchNormalization", "MaxPooling2D"}),
        ({"normalization": "none", "pooling": "l2"}, {"L2Pooling2D"}),
    ],
)
def test_options_of_alexnet(arguments, kinds, outline):
    model = outline("alexnet", **SMALL, **arguments)
    options = {"LocalResponseNormalization", "BatchNormalization", "MaxPooling2D", "L2Pooling2D"}
    assert {type(layer).__name__ for layer in model.layers} & options == kinds
    assert all(layer.across == "space" for layer in model.layers if hasattr(layer, "across"))


@pytest.mark.parametrize("name", ["alexnet", "overfeat", "vgg"])
def test_dropout_on_every_dense_layer_but_the_last(name, outline):
    for side in (32, 224):
        layers = outline(name, input_shape=(side, side, 3), classes=10, dropout=0.3).layers
        kinds = [type(layer).__name__ for layer in layers]
        dense = [place for place, kind in enumerate(kinds) if kind == "Dense"]
        assert [kinds[place + 1] for place in dense[:-1]] == ["Dropout"] * (len(dense) - 1)
        assert dense[-1] == len(layers) - 1
        assert {layer.rate for layer in layers if type(layer).__name__ == "Dropout"} == {0.3}


@pytest.mark.parametrize(
    ("name", "side", "sentence", "units"),
    [
        ("alexnet", 227, "11x11 convolution with stride 4, dense layers of 4096: as published, for 128", 4096),
        ("alexnet", 96, "7x7 convolution with stride 2, dense layers of 2048: images of 48 to 127", 2048),
        ("alexnet", 28, "5x5 convolution with stride 1, dense layers of 1024: images below 48", 1024),
        ("overfeat", 231, "11x11 convolution with stride 4, dense layers of 3072 and 4096: as published", 4096),
        ("overfeat", 64, "7x7 convolution with stride 2, dense layers of 1536 and 2048: images of 48", 2048),
        ("overfeat", 32, "5x5 convolution with stride 1, dense layers of 768 and 1024: images below 48", 1024),
        ("vgg", 224, "two hidden dense layers of 4096: as published, for 128 pixels or more", 4096),
        ("vgg", 32, "one hidden dense layer of 512: images below 128 pixels", 512),
        ("vgg", 28, "one hidden dense layer of 512, no pooling behind the fifth stage: images below 32", 512),
    ],
)
def test_small_images_get_another_beginning_and_end(name, side, sentence, units, outline):
    shape = (side, side, 3)
    assert ZOO.get(name).stem(shape).startswith(sentence)
    layers = outline(name, input_shape=shape, classes=10).layers
    assert [layer.units for layer in layers if type(layer).__name__ == "Dense"][-2:] == [units, 10]


@pytest.mark.parametrize("side", [28, 32, 47, 48, 64, 96, 127, 128])
@pytest.mark.parametrize("name", ["alexnet", "overfeat", "vgg", "mlp"])
def test_every_size_leaves_something_to_classify(name, side, outline):
    model = outline(name, input_shape=(side, side + 3, 1), classes=3)
    assert model.output_shape == (None, 3)
    assert model.get_layer("flatten").output.shape[1] > 0


@pytest.mark.parametrize(("name", "smallest"), [("alexnet", 15), ("overfeat", 16), ("vgg", 16)])
def test_no_smaller_input_would_do(name, smallest, monkeypatch):
    """The network itself breaks below the size that the check names."""
    module = importlib.import_module(ZOO.get(name).__name__)
    shape = {"classes": 10, "width": 0.1}
    with pytest.raises(SpecError) as caught:
        module.build(input_shape=(smallest, smallest - 1, 1), **shape)
    assert caught.value.why == f"its convolutions and poolings need at least {smallest}x{smallest}"
    monkeypatch.setattr(module, "check_input", lambda *_, **__: None)
    assert module.build(input_shape=(smallest, smallest, 1), **shape).output_shape == (None, 10)
    with pytest.raises(ValueError, match=r"negative|zero|smaller|size|dimension"):
        module.build(input_shape=(smallest, smallest - 1, 1), **shape)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "alexnet",
            {"width": 0.01},
            "a width of 0.01 leaves the layer conv1 without channels\n"
            "  why: it has 96 at width 1, and must keep a multiple of 2\n"
            "  fix: give model.arguments.width of at least 0.011",
        ),
        (
            "overfeat",
            {"width": 0.005},
            "a width of 0.005 leaves the layer conv1 without channels\n"
            "  why: it has 96 at width 1\n"
            "  fix: give model.arguments.width of at least 0.006",
        ),
        (
            "vgg",
            {"width": 0.005},
            "a width of 0.005 leaves the layer stage1_conv1 without channels\n"
            "  why: it has 64 at width 1\n"
            "  fix: give model.arguments.width of at least 0.008",
        ),
        (
            "mlp",
            {"width": 0.004},
            "a width of 0.004 leaves the layer dense1 without channels\n"
            "  why: it has 100 at width 1\n"
            "  fix: give model.arguments.width of at least 0.005",
        ),
        (
            "vgg",
            {"depth": 15},
            "there is no VGG of 15 layers\n  fix: set model.arguments.depth to one of 11, 13, 16, 19",
        ),
        (
            "alexnet",
            {"dropout": 1.0},
            "dropout must be from 0 to below 1, not 1\n"
            "  why: it is the share of values that a training step sets to zero\n"
            "  fix: correct model.arguments.dropout",
        ),
        (
            "alexnet",
            {"normalization": "lrm"},
            "normalization cannot be 'lrm'\n"
            "  fix: set model.arguments.normalization to one of lrn, lrn-intra, batch, none",
        ),
        ("mlp", {"depth": 0}, "depth must be at least 1, not 0\n  fix: correct model.arguments.depth"),
    ],
)
def test_what_is_refused(name, arguments, message):
    with pytest.raises(SpecError) as caught:
        ZOO.get(name).build(**SMALL, **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("width", [0.05, 0.3, 1 / 3, 0.7, 1.5])
def test_any_width_of_alexnet_divides_into_its_groups(width, outline):
    model = outline("alexnet", **SMALL, width=width)
    assert all(layer.filters % layer.groups == 0 for layer in model.layers if hasattr(layer, "groups"))


@pytest.mark.parametrize(
    ("arguments", "parameters", "starts"),
    [
        ({}, 79_510, "HeNormal"),
        ({"depth": 3, "units": 30}, 784 * 30 + 30 + 2 * 930 + 310, "HeNormal"),
        ({"depth": 2, "activation": "sigmoid"}, 79_510 + 10_100, "GlorotUniform"),
        ({"width": 0.5, "activation": "tanh"}, 785 * 50 + 510, "GlorotUniform"),
    ],
)
def test_shallow_and_deep_perceptrons(arguments, parameters, starts, outline):
    model = outline("mlp", input_shape=(28, 28, 1), classes=10, **arguments)
    assert model.count_params() == parameters
    hidden = [layer for layer in model.layers if layer.name.startswith("dense")]
    assert len(hidden) == arguments.get("depth", 1)
    for layer in hidden:
        assert layer.activation.__name__ == arguments.get("activation", "relu")
        assert type(layer.kernel_initializer).__name__ == starts


def _bright_quadrants(count):
    """(pixels, labels): noise, and one of four quadrants brighter."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count)
    images = rng.integers(0, 120, (count, 32, 32, 3))
    for image, label in zip(images, labels, strict=True):
        row, column = 16 * (label // 2), 16 * (label % 2)
        image[row : row + 16, column : column + 16] += 100
    return images.astype(np.float32), labels


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("alexnet", {}), ("overfeat", {}), ("vgg", {"depth": 19})],
)
@pytest.mark.long
def test_without_batch_normalization_it_learns_from_its_first_weights(name, arguments):
    import keras

    keras.utils.set_random_seed(1)
    model = ZOO.get(name).build(input_shape=(32, 32, 3), classes=4, width=0.25, dropout=0.0, **arguments)
    images, labels = _bright_quadrants(512)
    optimizer = keras.optimizers.SGD(0.003, momentum=0.9)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, labels, batch_size=32, epochs=5, verbose=0)
    # A network that knows nothing has log(4) = 1.39.
    assert model.evaluate(images, labels, verbose=0) < 0.5


@pytest.mark.parametrize("depth", [16, pytest.param(19, marks=pytest.mark.long)])
def test_same_answers_as_keras_applications(depth):
    import keras

    from emb.zoo._applications import carry_over

    keras.utils.set_random_seed(0)
    source = {16: keras.applications.VGG16, 19: keras.applications.VGG19}[depth](weights=None)
    rng = np.random.default_rng(0)
    for layer in source.layers:
        if hasattr(layer, "bias"):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    # Otherwise every class would get about 1/1000, whatever the weights.
    source.layers[-1].kernel.assign(20 * source.layers[-1].kernel)
    model = ZOO.get("vgg").build(input_shape=(224, 224, 3), classes=1000, depth=depth, preprocessing="caffe")
    carry_over(source, model, reverse_channels=True)
    images = rng.integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    expected = source.predict(keras.applications.vgg16.preprocess_input(images.copy()), verbose=0)
    found = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    turned = model.predict(images[..., ::-1], verbose=0)
    assert np.abs(turned - expected).max() > 0.01
