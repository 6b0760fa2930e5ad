"""`emb inspect --receptive-field`, `--filters` and `--feature-maps`, and the beginning that a network gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emb.cli import app
from emb.graph.receptive import Field, covered_share
from emb.pipeline.inspect import document, inspect
from emb.pipeline.recipes import shelf
from emb.report.images import kernel_grid, map_grid, write_png


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def pixels_of(path: Path) -> np.ndarray:
    """A PNG file as (height, width, 3) int64."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image).astype(np.int64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network as .keras and .tflite, and a picture for it."""
    import keras
    import tensorflow as tf
    from keras import layers

    folder = tmp_path_factory.mktemp("trained")
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="pixels"),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Conv2D(6, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(4, 3, activation="relu", bias_initializer="ones", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="scores"),
        ],
        name="small",
    )
    model.save(folder / "small.keras")
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, 12, 12, 3), tf.float32, name="pixels"))
    (folder / "small.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    flat = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)], name="flat")
    flat.save(folder / "flat.keras")
    pixels = np.random.default_rng(1).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    (folder / "torn.png").write_bytes((folder / "image.png").read_bytes()[:60])
    return folder


def test_receptive_field_of_a_recipe() -> None:
    result = run("lenet", "--receptive-field")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if "x" in line]
    assert rows[:4] == [
        ["conv1", "CONV_2D", "1x28x28x6", "5x5", "1x1", "3.2", "%"],
        ["pool1", "MAX_POOL_2D", "1x14x14x6", "6x6", "2x2", "4.6", "%"],
        ["conv2", "CONV_2D", "1x10x10x16", "14x14", "2x2", "25.0", "%"],
        ["pool2", "MAX_POOL_2D", "1x5x5x16", "16x16", "4x4", "32.7", "%"],
    ]
    shares = {row["name"]: row["image_share"] for row in document(inspect("lenet"))["operations"]}
    assert shares["conv2"] == 0.25
    assert shares["scores"] == 1.0


def test_a_field_covers_at_most_the_image() -> None:
    assert covered_share(Field(pixels=(7, 14), jump=(1, 1)), (14, 14)) == 0.5
    assert covered_share(Field(pixels=(99, 99), jump=(1, 1)), (14, 14)) == 1.0


def test_the_beginning_for_small_images_is_told() -> None:
    result = run("resnet20-cifar10", "--classes", "10")
    assert result.exit_code == 0, result.output
    assert "resnet20-cifar10: keras, NHWC; float32 1x32x32x3 -> float32 1x10" in result.stdout
    assert "beginning: 3x3 convolution with stride 1" in result.stdout


def test_classes_need_a_shape(tmp_path: Path) -> None:
    recipe = (shelf("recipes") / "lenet.toml").read_text(encoding="utf-8")
    (tmp_path / "bare.toml").write_text(re.sub(r"(?m)^shape = .*$", "", recipe), encoding="utf-8")
    result = run(tmp_path / "bare.toml", "--classes", "10")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: the recipe 'bare' has no input.shape\n"
        "  why: with --classes its data set is not looked at, which would give the shape\n"
        "  fix: leave --classes out, or set input.shape in the recipe\n"
    )


def test_the_beginning_is_the_builders_sentence() -> None:
    from emb.pipeline.zoo_graph import stem_of
    from emb.zoo import ZOO

    wanted = ZOO.get("resnet").stem((96, 96, 3), depth=18)
    assert stem_of("resnet", input_shape=(96, 96, 3), arguments={"depth": 18}) == wanted != ""
    assert stem_of("lenet", input_shape=(28, 28, 1), arguments={}) == ""
    assert document(inspect("lenet"))["stem"] is None


@pytest.mark.parametrize("name", ["small.keras", "small.tflite"])
def test_filters(trained: Path, tmp_path: Path, name: str) -> None:
    picture = tmp_path / "filters.png"
    result = run(trained / name, "--filters", picture)
    assert result.exit_code == 0, result.output
    assert f"{picture}: " in result.stdout
    assert "5x5x3x6" in result.stdout
    # Six tiles of 5x5 weights, 10 pixels a weight, in three columns and two rows.
    assert pixels_of(picture).shape == (2 + 2 * 52, 2 + 3 * 52, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["filters.png"]


def test_both_files_of_a_model_give_the_same_picture(trained: Path, tmp_path: Path) -> None:
    for name in ("keras", "tflite"):
        run(trained / f"small.{name}", "--filters", tmp_path / f"{name}.png")
    one, other = (pixels_of(tmp_path / f"{name}.png") for name in ("keras", "tflite"))
    assert np.abs(one - other).max() <= 1


def test_feature_maps_are_what_the_layers_compute(trained: Path, tmp_path: Path) -> None:
    ranges = {}
    for name in ("keras", "tflite"):
        (tmp_path / name).mkdir()
        result = run(
            trained / f"small.{name}", "--feature-maps", trained / "image.png", "--output", tmp_path / name, "--json"
        )
        assert result.exit_code == 0, result.output
        pictures = json.loads(result.stdout)["pictures"]
        assert [tuple(picture["shape"]) for picture in pictures] == [(8, 8, 6), (2, 2, 4)]
        assert sorted(Path(picture["file"]) for picture in pictures) == sorted((tmp_path / name).iterdir())
        ranges[name] = [(picture["least"], picture["largest"]) for picture in pictures]
    np.testing.assert_allclose(ranges["keras"], ranges["tflite"], rtol=1e-4, atol=1e-5)
    assert ranges["keras"][0][1] > 0
    assert (tmp_path / "keras" / "01-conv1.png").is_file()


def test_an_existing_picture_is_replaced(trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "filters.png"
    picture.write_text("old", encoding="utf-8")
    run(trained / "small.keras", "--filters", picture)
    assert pixels_of(picture).ndim == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("lenet", "--filters", "{tmp}/x.png"),
            "error: lenet holds no trained weights\n"
            "  why: kernels and feature maps are those of a model after its training; a recipe is what it begins with\n"
            "  fix: build it and give the build's directory: emb build lenet\n",
        ),
        (
            ("{trained}/flat.keras", "--filters", "{tmp}/x.png"),
            "error: flat has no convolution\n"
            "  why: kernels and feature maps are those of convolutions; this model has none\n"
            "  fix: give a model with a convolution\n",
        ),
        (
            ("{trained}/flat.keras", "--feature-maps", "{trained}/image.png", "--output", "{tmp}"),
            "error: flat has no convolution\n"
            "  why: kernels and feature maps are those of convolutions; this model has none\n"
            "  fix: give a model with a convolution\n",
        ),
        (
            ("{trained}/small.tflite", "--filters", "{tmp}/no/x.png"),
            "error: cannot write {tmp}/no/x.png\n"
            "  why: there is no directory {tmp}/no\n"
            "  fix: make it, or choose another place\n",
        ),
        (
            ("{trained}/small.tflite", "--feature-maps", "{trained}/image.png", "--output", "{tmp}/no"),
            "error: cannot write feature maps to {tmp}/no\n"
            "  why: it is no directory\n"
            "  fix: make it, or choose another one with --output\n",
        ),
        (
            ("{trained}/small.tflite", "--feature-maps", "{tmp}/none.png", "--output", "{tmp}"),
            "error: {tmp}/none.png cannot be read\n"
            "  why: no such file or directory\n"
            "  fix: check that it exists and that you may read it\n",
        ),
        (
            ("{trained}/small.tflite", "--filters", "{tmp}/x.jpg"),
            "error: --filters writes a PNG file, and {tmp}/x.jpg has another ending\n  fix: name it {tmp}/x.png\n",
        ),
        (
            ("{trained}/small.tflite", "--filters", "{tmp}/x.png", "--output", "{tmp}"),
            "error: --output has nothing to do\n  why: it is for --feature-maps\n  fix: leave --output out\n",
        ),
        (
            ("{trained}/small.tflite", "--filters", "{tmp}/x.png", "--receptive-field"),
            "error: --filters and --receptive-field cannot go together\n"
            "  why: each shows something else of a model\n"
            "  fix: call emb inspect once with each\n",
        ),
        (
            ("{trained}/small.tflite", "--classes", "4"),
            "error: --classes does not apply to {trained}/small.tflite\n"
            "  why: a model that lies in a file has its classes already\n"
            "  fix: leave --classes out, or give a recipe whose model has a builder\n",
        ),
    ],
    ids=[
        "recipe",
        "filters of no convolution",
        "maps of no convolution",
        "no directory",
        "no output",
        "no image",
        "no PNG",
        "output of filters",
        "filters and fields",
        "classes of a file",
    ],
)
def test_what_is_refused(trained: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*(argument.format(trained=trained, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr == message.format(trained=trained, tmp=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_image_is_refused(trained: Path, tmp_path: Path) -> None:
    result = run(trained / "small.tflite", "--feature-maps", trained / "torn.png", "--output", tmp_path)
    assert result.exit_code == 2
    assert "torn.png" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_onnx_has_no_feature_maps_to_give(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    result = run(tmp_path / "m.onnx", "--feature-maps", tmp_path / "x.png", "--output", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: the feature maps of {tmp_path}/m.onnx cannot be read\n"
        "  why: ONNX Runtime gives out a model's output alone\n"
        "  fix: give the .tflite or .keras file of the same model\n"
    )


def test_grey_kernels_are_darker_where_the_weight_is_larger() -> None:
    kernels = np.array([[[[-1.0]], [[1.0]]], [[[0.0]], [[1.0]]]], np.float32)  # one 2x2 kernel
    drawn = np.asarray(kernel_grid(kernels))[2:-2, 2:-2, 0]
    assert [int(drawn[row, column]) for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [255, 0, 127, 0]


def test_colour_kernels_are_red_green_and_blue() -> None:
    kernels = np.zeros((1, 1, 3, 1), np.float32)
    kernels[0, 0, 1, 0] = 1
    assert np.asarray(kernel_grid(kernels))[5, 5].tolist() == [0, 255, 0]


def test_kernels_on_many_channels_have_a_row_each() -> None:
    assert kernel_grid(np.zeros((3, 3, 2, 5), np.float32)).size == (2 + 2 * 50, 2 + 5 * 50)


def test_maps_are_brighter_where_they_are_larger_and_grey_where_all_is_equal() -> None:
    maps = np.zeros((2, 2, 1), np.float32)
    maps[0, 0, 0] = 3
    drawn = np.asarray(map_grid(maps))[2:-2, 2:-2, 0]
    assert (drawn[0, 0], drawn[-1, -1]) == (255, 0)
    assert np.unique(np.asarray(map_grid(np.ones((2, 2, 1), np.float32)))[2:-2, 2:-2]).tolist() == [128]


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "old.png"
    path.write_text("old", encoding="utf-8")

    class Broken:
        def save(self, stream: Any, format: str) -> None:  # noqa: A002  # Pillow's own name
            stream.write(b"half")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_png(Broken(), path)  # type: ignore[arg-type]
    assert path.read_text(encoding="utf-8") == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["old.png"]
