"""What a recipe would become: its .tflite with untrained weights, which decide neither operations nor sizes."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from emb.pipeline.digests import digest_of_path
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.stage import code_digest, versions
from emb.spec.recipe import Recipe
from emb.store import Artifact, Step, Store

# Of generated images; the ranges they give decide no operation and no size.
_CALIBRATION_IMAGES = 8
_MODEL, _LAYERS = "model.tflite", "layers.json"

_CODE = ("zoo", "layers", "export", "quantize", "graph", "pipeline/untrained.py")


def converted(
    recipe: Recipe, *, shape: tuple[int, int, int], classes: int, scheme: str = "int8", trust_model: bool = False
) -> Artifact:
    """The recipe's .tflite in `scheme` before any training, from the store or made now; see `model_of`.

    A model that lies in a file is converted as it is, untuned.
    shape: (height, width, channels) of the images.  trust_model: load a Keras file that carries Python code.
    """
    step = Step(
        name="untrained",
        inputs={"model": digest_of_path(Path(recipe.model.file))} if recipe.model.file else {},
        parameters={
            "model": {**asdict(recipe.model), "file": bool(recipe.model.file)},
            "shape": list(shape),
            "classes": classes,
            "softmax": recipe.export.softmax,
            "scheme": scheme,
            "trusted": trust_model,
        },
        tools=versions(("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer")),
        code=code_digest(_CODE),
    )

    def work(folder: Path) -> None:
        _convert(recipe, folder, shape=shape, classes=classes, scheme=scheme, trust_model=trust_model)

    return Store().run(step, work)


def model_of(artifact: Artifact) -> tuple[Path, tuple[str, ...]]:
    """The .tflite file that `converted` made, and the names of the Keras layers behind it."""
    return artifact.path(_MODEL), tuple(read_json(artifact.path(_LAYERS)))


def layer_names(path: Path) -> tuple[str, ...]:
    """Names of the layers of a .keras file, read without Keras; none of any other file."""
    if path.suffix.lower() != ".keras":
        return ()
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    return tuple(layer["config"]["name"] for layer in config["config"].get("layers", ()))


def _convert(
    recipe: Recipe, folder: Path, *, shape: tuple[int, int, int], classes: int, scheme: str, trust_model: bool
) -> None:
    from emb.export import printing_to_log
    from emb.pipeline.engine import keras_on_tensorflow

    with keras_on_tensorflow(), printing_to_log():
        from emb.export.source import open_source, without_softmax
        from emb.pipeline.pixels import PIXELS
        from emb.quantize import SCHEMES, quantize_tflite

        path = Path(recipe.model.file) if recipe.model.file else folder / "model.keras"
        if not recipe.model.file:
            _save_untrained(recipe, path, shape=shape, classes=classes)
        write_json(folder / _LAYERS, layer_names(path))
        source = open_source(path, trust=trust_model)
        if recipe.export.softmax == "drop":
            source = without_softmax(source)
        pixels = source.write(folder / "float.tflite", file_format="tflite", pixels=PIXELS[recipe.input.pixels])
        images = np.random.default_rng(0).integers(0, 256, (_CALIBRATION_IMAGES, *shape), dtype=np.uint8)
        wanted = SCHEMES.get(scheme).SCHEME
        quantize_tflite(
            folder / "float.tflite",
            folder / _MODEL,
            scheme=wanted,
            calibration=images if wanted.calibrated else None,
            pixels=pixels,
        )
        for name in ("model.keras", "float.tflite"):
            (folder / name).unlink(missing_ok=True)


def _save_untrained(recipe: Recipe, path: Path, *, shape: tuple[int, int, int], classes: int) -> None:
    import keras

    from emb.train import without_auxiliaries
    from emb.zoo import ZOO

    keras.utils.set_random_seed(0)
    model = ZOO.get(recipe.model.builder).build(input_shape=shape, classes=classes, **dict(recipe.model.arguments))
    model = without_auxiliaries(model)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        # Converters leave out biases that are zero everywhere, which none is after a training.
        if len(variable.shape) == 1:
            variable.assign(variable + rng.uniform(0.01, 0.02, variable.shape))
    model.save(path)
