"""The single stages of a build, each with everything that decides what it makes. Puts them in no order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emb.pipeline import quantized_training, repairing, stages, training_stages, validation
from emb.pipeline.drawing import draw_curves, draw_surface
from emb.pipeline.engine import Engine
from emb.pipeline.pretrained import IMAGENET
from emb.pipeline.stage import Stage, Work, versions
from emb.pipeline.training_process import train_in_own_process
from emb.spec.recipe import Recipe
from emb.spec.scheme import Scheme

Format = Literal["tflite", "onnx"]

_KERAS = ("keras", "tensorflow", "numpy")
_CONVERTERS = {"tflite": ("tensorflow", "keras"), "onnx": ("tensorflow", "keras", "tf2onnx", "onnx")}
_QUANTIZERS = {
    "tflite": ("ai-edge-quantizer", "ai-edge-litert", "flatbuffers"),
    "onnx": ("onnxruntime", "onnx"),
}
# What the model stage runs of the pipeline's own, and what all others do.
_TRAINING_CODE = ("pipeline/training_stages.py", "pipeline/pixels.py", "pipeline/json_files.py", "spec")
_OWN_CODE = (
    *("pipeline/stages.py", "pipeline/measuring.py", "pipeline/pixels.py", "pipeline/json_files.py", "spec"),
    "pipeline/quantized_models.py",
)
# What trains a model on, or repairs it, on its way to int8.
_QUANTIZED_CODE = ("train", "data", "layers", "graph", "export", "quantize", *_OWN_CODE)
_REPAIRING_CODE = tuple(
    f"pipeline/{name}.py" for name in ("quantized_training", "repairing", "repair_bench", "keeping_float", "validation")
)

_DOCTOR_CODE = (
    "pipeline/calibration.py",
    *(f"quantize/_calibration_{part}.py" for part in ("doctor", "findings", "pixels", "sample")),
)


def data_stage(recipe: Recipe, digest: str) -> Stage:
    """What the data set holds, and the golden images."""
    return Stage(
        name="data",
        group="data",
        work=stages.data,
        inputs={"data": digest},
        parameters=data_parameters(recipe),
        tools=versions(("numpy", "pillow")),
        packages=("data", *_OWN_CODE),
    )


def calibration_stage(recipe: Recipe, digest: str) -> Stage:
    """Images whose activations give the ranges of quantization."""
    return Stage(
        name="calibration",
        group="data",
        work=stages.calibration,
        inputs={"data": digest},
        parameters={**data_parameters(recipe), "images": recipe.quantize.calibration_images},
        tools=versions(("numpy", "pillow")),
        packages=("data", *_DOCTOR_CODE, *_OWN_CODE),
    )


def model_stage(
    recipe: Recipe, *, data_digest: str, model_digest: str, engine: Engine, gradients: bool
) -> tuple[Stage, str]:
    """The stage called "model", and the name of the model in its artifact."""
    own = recipe.model.file
    common: dict[str, Any] = {"name": "model", "group": "train", "chatty": True}
    if own and recipe.train.epochs == 0:
        path = Path(own)
        stage = Stage(
            **common,
            work=training_stages.adopt,
            needs=("data",),
            inputs={"model": model_digest},
            tools=versions(_KERAS),
            packages=("export", "layers", "graph", *_TRAINING_CODE),
        )
        return stage, "model" if path.is_dir() else f"model{path.suffix.lower()}"
    # The published weights are treated otherwise than the same file given by its name.
    published = {"published_weights": True} if recipe.model.weights == IMAGENET else {}
    # A file of weights is opened as any model is.
    code = ("export",) if own else ("zoo", "export") if recipe.model.weights else ("zoo",)
    work: Callable[[Work], None] = training_stages.tune if own else training_stages.train
    if engine.backend != "tensorflow":
        work = partial(train_in_own_process, engine=engine, tuned=bool(own))
    stage = Stage(
        **common,
        work=work,
        inputs={"data": data_digest} | ({"model": model_digest} if model_digest else {}),
        parameters={
            **data_parameters(recipe),
            "builder": recipe.model.builder,
            "arguments": dict(recipe.model.arguments),
            "pixels": recipe.input.pixels,
            "train": asdict(recipe.train),
            "backend": engine.backend,
            "devices": engine.devices,
            "gradients": gradients,
            **published,
        },
        tools=versions((*engine.tools, "pillow")),
        packages=("train", "data", "layers", "graph", *code, "pipeline/pretrained.py", *_TRAINING_CODE),
        resumable=True,
    )
    return stage, "model.keras"


def curves_stage(recipe: Recipe) -> Stage:
    """The training as pictures."""
    return Stage(
        name="curves",
        group="curves",
        work=partial(draw_curves, title=recipe.name),
        needs=("model",),
        parameters={"title": recipe.name},
        tools=versions(("altair", "vl-convert-python")),
        packages=("report/curves.py", "report/chart.py", "pipeline/drawing.py", "pipeline/json_files.py"),
    )


def surface_stage(recipe: Recipe, *, data_digest: str, points: int) -> Stage:
    """The loss around the trained model; points: to a side."""
    return Stage(
        name="surface",
        group="surface",
        work=partial(draw_surface, title=recipe.name, points=points),
        needs=("model",),
        inputs={"data": data_digest},
        parameters={
            **data_parameters(recipe),
            "pixels": recipe.input.pixels,
            "points": points,
            "title": recipe.name,
        },
        tools=versions((*_KERAS, "altair", "vl-convert-python")),
        packages=(
            *("train/surface.py", "report/surface.py", "report/chart.py", "pipeline/drawing.py", "pipeline/pixels.py"),
            *("export", "layers", "graph", "data", "spec"),
        ),
        chatty=True,
    )


def reference_stage(recipe: Recipe, model_file: str, *, data_digest: str) -> Stage:
    """The float model's own answers."""
    return Stage(
        name="reference",
        group="reference",
        work=partial(stages.reference, model=model_file),
        needs=("data", "model"),
        inputs={"data": data_digest},
        parameters={**data_parameters(recipe), "pixels": recipe.input.pixels},
        tools=versions((*_KERAS, "ai-edge-litert", "onnxruntime", "pillow")),
        packages=("export", "layers", "data", "bench", "runtimes", "graph", *_OWN_CODE),
        chatty=True,
    )


def qat_stage(recipe: Recipe, model_file: str, scheme: Scheme, *, data_digest: str) -> Stage:
    """The model trained on with the rounding in place, and the ranges that it was trained with."""
    bits = scheme.weight_bits
    return Stage(
        name="qat" if bits == 8 else f"qat int{bits}",
        group="qat",
        work=partial(quantized_training.train_quantized, source="model", model=model_file, bits=bits),
        needs=("model", "calibration"),
        inputs={"data": data_digest},
        parameters={**_quantized_parameters(recipe), "bits": bits},
        tools=versions((*_KERAS, "pillow")),
        packages=(*_QUANTIZED_CODE, "pipeline/quantized_training.py"),
        resumable=True,
        chatty=True,
    )


def repair_stage(
    recipe: Recipe, model_file: str, scheme: Scheme, *, source: str, data_digest: str, float_refusal: str
) -> Stage:
    """The model of stage `source`, and ranges for it, so that its int8 file loses no more than is allowed.

    float_refusal: why none of its layers may compute in float32, "" if some may.
    """
    return Stage(
        name=f"repair {source}",
        group="repair",
        work=partial(repairing.repair, source=source, model=model_file, scheme=scheme, float_refusal=float_refusal),
        needs=tuple(dict.fromkeys(("model", source, "calibration"))),
        inputs={"data": data_digest},
        parameters={
            **_quantized_parameters(recipe),
            "max_drop": recipe.repair.max_drop,
            "float_layers": not float_refusal,
            "keep_float": recipe.repair.keep_float,
            "scheme": scheme.name,
            "softmax": recipe.export.softmax,
        },
        tools=versions((*_KERAS, *_QUANTIZERS["tflite"], "pillow")),
        packages=(*_QUANTIZED_CODE, "runtimes", *_REPAIRING_CODE),
        resumable=True,
        chatty=True,
    )


def _quantized_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides how a model is trained on or repaired."""
    return {
        **data_parameters(recipe),
        "pixels": recipe.input.pixels,
        "train": asdict(quantized_training.spec_of(recipe)),
        "method": recipe.quantize.calibration_method,
    }


def float_stage(
    recipe: Recipe, file_format: Format, model_file: str, *, optional: bool, source: str = "model"
) -> Stage:
    """The float32 file of one format. optional: the build goes on without it.  source: what made the model."""
    return Stage(
        name=f"float32.{file_format}" if source == "model" else f"float32.{file_format} of {source}",
        group="export",
        work=partial(stages.export_float, file_format=file_format, model=model_file, source=source),
        needs=(source,),
        parameters={"format": file_format, "pixels": recipe.input.pixels, "softmax": recipe.export.softmax},
        tools=versions(_CONVERTERS[file_format]),
        packages=("export", "layers", "graph", *_OWN_CODE),
        chatty=True,
        optional=optional,
    )


def quantize_stage(recipe: Recipe, file_format: Format, scheme: Scheme, *, source: str, chosen: str = "") -> Stage:
    """A file in another scheme. source: the stage with the float32 file.  chosen: the one that chose ranges."""
    return Stage(
        name=f"{scheme.name}.{file_format}",
        group="quantize",
        work=partial(stages.quantize, file_format=file_format, scheme=scheme, source=source, chosen=chosen),
        needs=(source, *(("calibration",) if scheme.calibrated else ()), *((chosen,) if chosen else ())),
        parameters={"scheme": scheme.name, **(quantize_parameters(recipe) if scheme.calibrated else {})},
        tools=versions(_QUANTIZERS[file_format]),
        # Which operations a repaired model's layers became is read from the model.
        packages=("quantize", "graph", *(("export", "layers") if chosen else ()), *_OWN_CODE),
        chatty=True,
        optional=True,
    )


def quantize_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides, beside the calibration images, what a calibrated file of a float one is."""
    quantize = recipe.quantize
    return {"method": quantize.calibration_method, "lanes": quantize.lanes, "maps": quantize.maps}


def check_stage(file_format: Format, scheme: Scheme, *, source: str, optional: bool, chosen: str = "") -> Stage:
    """The rules that a file must obey. source: the stage with the file.  chosen: the one that left layers in float."""
    return Stage(
        name=f"check {source}",
        group="check",
        work=partial(stages.check, file_format=file_format, scheme=scheme, source=source, chosen=chosen),
        needs=(source, *((chosen,) if chosen else ())),
        parameters={"scheme": scheme.name},
        tools=versions(("ai-edge-litert", "onnx")),
        packages=("graph", "export", "layers", "pipeline/graphs.py", *_OWN_CODE),
        optional=optional,
    )


def verify_stage(
    recipe: Recipe, file_format: Format, source: str, runtime: str, mode: str, *, data_digest: str
) -> Stage:
    """What one runtime answers, in one of its modes."""
    return Stage(
        name=f"verify {source} on {runtime} {mode}",
        group="verify",
        work=partial(stages.verify, file_format=file_format, source=source, runtime=runtime, mode=mode),
        needs=("data", "reference", source),
        inputs={"data": data_digest},
        parameters={**data_parameters(recipe), "pixels": recipe.input.pixels, "runtime": runtime, "mode": mode},
        tools=versions((runtime if runtime != "litert" else "ai-edge-litert", "numpy", "pillow")),
        packages=("runtimes", "graph", "data", "bench", "pipeline/graphs.py", *_OWN_CODE),
        optional=True,
    )


def validate_stage(recipe: Recipe, file_format: Format, source: str, *, data_digest: str) -> Stage:
    """What a file's own runtime answers on the validation images."""
    runtime = validation.RUNTIME_OF[file_format]
    return replace(
        verify_stage(recipe, file_format, source, runtime, "default", data_digest=data_digest),
        name=f"validate {source}",
        group="validate",
        work=partial(validation.validate, file_format=file_format, source=source),
        needs=(source,),
        packages=("runtimes", "data", "pipeline/validation.py", *_OWN_CODE),
    )


def measure_stage(
    recipe: Recipe, file_format: Format, source: str, runtime: str, mode: str, *, machine_digest: str
) -> Stage:
    """How long one runtime takes on this machine."""
    return replace(
        verify_stage(recipe, file_format, source, runtime, mode, data_digest=""),
        name=f"measure {source} on {runtime} {mode}",
        group="measure",
        work=partial(stages.measure, file_format=file_format, source=source, runtime=runtime, mode=mode),
        needs=("data", source),
        inputs={"machine": machine_digest},
        parameters={"pixels": recipe.input.pixels, "runtime": runtime, "mode": mode},
    )


def data_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides the images beside the files' content."""
    return {
        "data": recipe.data.name,
        "shape": list(recipe.input.shape),
        "validation_fraction": recipe.data.validation_fraction,
        "seed": recipe.train.seed,
        "skip_bad": recipe.data.skip_bad,
    }
