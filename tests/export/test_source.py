"""Other people's models: each format opens, predicts and is written; each fault is one clear error."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import ExportError, ModelError
from emb.export import onnx, tflite
from emb.export.source import open_source
from emb.spec.contract import Pixels

HALF = Pixels(scale=2 / 255, offset=-1.0)


@pytest.fixture(scope="module")
def unscaled() -> Any:
    """A classifier that takes pixels in -1..1."""
    import keras

    keras.utils.set_random_seed(5)
    image = keras.Input((16, 16, 3))
    x = keras.layers.MaxPooling2D(4)(keras.layers.Conv2D(4, 3, activation="relu")(image))
    scores = keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(x))
    return keras.Model(image, scores, name="unscaled")


def _save(model: Any, folder: Path, kind: str) -> Path:
    path = folder / {"savedmodel": "folder"}.get(kind, f"model.{kind}")
    if kind == "savedmodel":
        model.export(path, verbose=False)
    elif kind in ("keras", "h5"):
        model.save(path)
    else:
        {"tflite": tflite, "onnx": onnx}[kind].export(model, path)
    return path


@pytest.fixture(scope="module")
def saved(unscaled: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """saved(kind): the classifier, saved once in each format."""
    import warnings

    folder = tmp_path_factory.mktemp("saved")
    with warnings.catch_warnings():
        # Keras advises against .h5, which people have nevertheless.
        warnings.simplefilter("ignore")
        return {kind: _save(unscaled, folder, kind) for kind in ("keras", "h5", "savedmodel", "tflite", "onnx")}


@pytest.mark.parametrize("kind", ["keras", "h5", "savedmodel"])
@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_a_frameworks_model_is_written_in_both_formats(
    kind: str, file_format: str, saved: Any, unscaled: Any, networks: Any, run: Any, tmp_path: Path
) -> None:
    images = networks.images("residual", 3)
    source = open_source(saved[kind])
    assert (source.input_shape, source.classes, source.notes) == ((16, 16, 3), 4, ())
    expected = np.asarray(unscaled(images * np.float32(2 / 255) - 1))
    np.testing.assert_allclose(source.predict(images, pixels=HALF), expected, atol=1e-5)
    path = tmp_path / f"model.{file_format}"
    left = source.write(path, file_format=file_format, pixels=HALF)
    assert left == (HALF if kind == "savedmodel" else Pixels())
    given = images if left == Pixels() else images * np.float32(2 / 255) - 1
    np.testing.assert_allclose(run(path, given), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "other"), [("tflite", "onnx"), ("onnx", "tflite")])
def test_a_file_is_written_as_it_is_and_in_no_other_format(kind: str, other: str, saved: Any, tmp_path: Path) -> None:
    source = open_source(saved[kind])
    assert (source.input_shape, source.classes, source.model) == ((16, 16, 3), 4, None)
    assert source.predict(np.zeros((1, 16, 16, 3), np.uint8)) is None
    assert source.write(tmp_path / "copy", file_format=kind, pixels=HALF) == HALF
    with pytest.raises(ExportError) as caught:
        source.write(tmp_path / "other", file_format=other)
    assert str(caught.value) == (
        f"model.{kind} cannot be written as {other}\n"
        f"  why: emb does not convert between .tflite and .onnx; this is {source.kind}\n"
        f"  fix: build {kind} only, or give the Keras model that it was made from"
    )


def test_logits_are_noted(built: Any, tmp_path: Path) -> None:
    built("logits").save(tmp_path / "model.keras")
    source = open_source(tmp_path / "model.keras")
    assert source.notes == (
        "the model returns scores that are no probabilities (logits); the highest still names the class",
    )


def test_a_dynamic_batch_of_an_onnx_becomes_1(saved: Any, tmp_path: Path, networks: Any, run: Any) -> None:
    model = onnx.read_model(saved["onnx"])
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    (tmp_path / "dynamic.onnx").write_bytes(model.SerializeToString())
    source = open_source(tmp_path / "dynamic.onnx")
    source.write(tmp_path / "fixed.onnx", file_format="onnx")
    assert onnx.border(tmp_path / "fixed.onnx")[0].shape == (1, 3, 16, 16)


# --- faults ---------------------------------------------------------------------------------------------------------


def _error(path: Path, **arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        open_source(path, **arguments)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    assert _error(tmp_path / "no.keras") == f"there is no model at {tmp_path / 'no.keras'}\n  fix: check the path"


def test_an_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    assert _error(tmp_path / "model.pt") == (
        "model.pt is of no known model format\n"
        "  why: emb knows .keras, .h5, .tflite, .onnx and SavedModel folders, not .pt\n"
        "  fix: save the model with model.save('model.keras') or export it to ONNX"
    )


def test_a_text_file_named_keras(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("hello")
    assert _error(tmp_path / "model.keras") == (
        "model.keras is not a readable Keras model\n"
        "  why: it is no zip archive, which every .keras file is; it may be cut off or of another kind\n"
        "  fix: save it again with model.save('model.keras'), or copy it again"
    )


def test_a_truncated_keras(saved: Any, tmp_path: Path) -> None:
    content = saved["keras"].read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    assert "it is no zip archive" in _error(tmp_path / "cut.keras")


def test_a_keras_with_a_flipped_byte(saved: Any, tmp_path: Path) -> None:
    content = bytearray(saved["keras"].read_bytes())
    with zipfile.ZipFile(saved["keras"]) as archive:
        entry = archive.getinfo("model.weights.h5")
    content[entry.header_offset + 2000] ^= 0xFF
    (tmp_path / "flipped.keras").write_bytes(content)
    assert "its part model.weights.h5 is damaged" in _error(tmp_path / "flipped.keras")


@pytest.mark.parametrize("keep", [100, 0.5])
def test_a_corrupt_h5(keep: float, saved: Any, tmp_path: Path) -> None:
    content = saved["h5"].read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: keep if keep > 1 else int(len(content) * keep)])
    message = _error(tmp_path / "cut.h5")
    assert message.startswith("cut.h5 is not a readable Keras model\n  why: ")
    assert "Traceback" not in message


def test_weights_without_architecture(unscaled: Any, tmp_path: Path) -> None:
    unscaled.save_weights(tmp_path / "only.weights.h5")
    assert "it holds no architecture, only weights" in _error(tmp_path / "only.weights.h5")


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_code_in_a_model_is_refused_and_can_be_trusted(kind: str, tmp_path: Path) -> None:
    import warnings

    import keras

    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x * 2, output_shape=(8, 8, 1), name="twice")(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    path = tmp_path / f"unsafe.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the advice against .h5
        model.save(path)
    assert _error(path) == (
        f"unsafe.{kind} holds Python code\n"
        "  why: its layer 'twice' is a Lambda, and loading it runs whatever code its author put there\n"
        "  fix: replace the layer by one of Keras's own, or pass --trust-model if you know the author"
    )
    source = open_source(path, trust=True)
    images = np.full((1, 8, 8, 1), 3, np.uint8)
    np.testing.assert_allclose(source.predict(images), np.asarray(model(images.astype(np.float32))), rtol=1e-5)


def test_an_unknown_layer_class_is_named(saved: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved["keras"]) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D")
    layer.update(class_name="Mine", module="mine", registered_name="Mine")
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "mine.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    message = _error(tmp_path / "mine.keras")
    assert message.startswith("mine.keras cannot be loaded by Keras 3.")
    assert "Mine" in message
    assert "Traceback" not in message


def test_auxiliary_outputs_are_left_out(tmp_path: Path) -> None:
    import keras

    from emb.layers import LocalResponseNormalization

    image = keras.Input((8, 8, 3))
    x = LocalResponseNormalization()(keras.layers.Conv2D(4, 3)(image))
    scores = keras.layers.Dense(3, name="scores")(keras.layers.Flatten()(x))
    helping = keras.layers.Dense(3, name="auxiliary1")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, [scores, helping]).save(tmp_path / "two.keras")
    source = open_source(tmp_path / "two.keras")
    assert [layer.name for layer in source.model.layers].count("auxiliary1") == 0
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    expected = np.asarray(keras.Model(image, scores)(images.astype(np.float32)))
    np.testing.assert_allclose(source.predict(images), expected, rtol=1e-5, atol=1e-4)


def test_two_outputs(tmp_path: Path) -> None:
    import keras

    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(image)
    model = keras.Model(image, [keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)], name="two")
    model.save(tmp_path / "model.keras")
    assert _error(tmp_path / "model.keras") == (
        "the model two has 1 inputs and 2 outputs\n"
        "  why: emb deploys image classifiers: one image in, one row of scores out\n"
        "  fix: build a keras.Model from the one input to the one output that classifies"
    )


def test_an_output_that_is_no_row_of_scores(tmp_path: Path) -> None:
    import keras

    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save(tmp_path / "model.keras")
    assert _error(tmp_path / "model.keras") == (
        "model.keras returns (6, 6, 4) per image\n"
        "  why: a classifier returns one score per class, of shape (batch, classes) with 2 classes or more\n"
        "  fix: end the model in Dense(classes), behind Flatten or GlobalAveragePooling2D"
    )


def test_a_folder_without_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert _error(tmp_path / "folder") == (
        "folder is no SavedModel folder\n"
        "  why: it holds no saved_model.pb\n"
        "  fix: write it with model.export('folder'), or give the .keras file"
    )


def test_a_damaged_saved_model(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"nothing")
    assert _error(tmp_path / "folder").startswith("the SavedModel folder cannot be loaded\n  why: ")


@pytest.mark.parametrize("file_format", ["tflite", "onnx"])
def test_a_quantized_file(file_format: str, saved: Any, networks: Any, tmp_path: Path) -> None:
    from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite

    path = tmp_path / f"int8.{file_format}"
    convert = {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format]
    scheme = SCHEMES.get("int8").SCHEME
    convert(saved[file_format], path, scheme=scheme, calibration=networks.images("residual", 4))
    message = _error(path)
    assert message.startswith(f"int8.{file_format} is no float32 model\n  why: it holds ")
    assert message.endswith("fix: give the float32 model that it was made from")


def test_a_damaged_tflite(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"\x00" * 4 + b"TFL3" + b"\xff" * 100)
    assert _error(tmp_path / "model.tflite").startswith("model.tflite is not a readable .tflite file\n  why: ")
