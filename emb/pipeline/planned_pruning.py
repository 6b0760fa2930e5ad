"""The stages of a build that prunes, beside those of every build. Puts them in no order.

The stage called "model" is then the pruned and fine-tuned model, so that all later stages are as ever; what was
trained before it is the stage "unpruned", the very same artifact that the build without pruning has as its model.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from emb.errors import ModelError
from emb.pipeline import prune_stages
from emb.pipeline.engine import Engine
from emb.pipeline.planned import data_parameters, quantize_parameters
from emb.pipeline.stage import Stage, versions
from emb.spec.pruning import SMALLER
from emb.spec.recipe import Recipe
from emb.spec.scheme import Scheme

COMPARISON = "measure unpruned"
# Opens, counts and saves models.
_MODELS = ("export", "layers", "graph", "spec", "pipeline/pixels.py", "pipeline/json_files.py", "pipeline/stages.py")
# Also converts and times them.
_CONVERSION = (*_MODELS, "quantize", "runtimes", "bench", "pipeline/conversion.py", "pipeline/measuring.py")
_CONVERSION_TOOLS = ("keras", "tensorflow", "numpy", "ai-edge-quantizer", "ai-edge-litert", "flatbuffers")


def unpruned_stage(model: Stage, recipe: Recipe) -> Stage:
    """The model stage of a build without pruning, in its place in one with. Raises ModelError for other files."""
    file = recipe.model.file
    if file and (Path(file).is_dir() or Path(file).suffix.lower() in (".tflite", ".onnx")):
        kind = "a SavedModel" if Path(file).is_dir() else f"a {Path(file).suffix.lower()} file"
        raise ModelError(
            f"{file} cannot be pruned",
            why=f"emb prunes Keras models, whose layers it can change and train; this is {kind}",
            fix="give the .keras or .h5 file, or leave --prune out",
        )
    return replace(model, name="unpruned")


def prune_stage(
    recipe: Recipe, *, unpruned: str, data_digest: str, machine_digest: str, engine: Engine
) -> tuple[Stage, str]:
    """The stage called "model", and the name of the model in its artifact. unpruned: that in the unpruned one's."""
    goal = recipe.prune.target
    searched = goal.kind in ("bytes", "latency")
    work = prune_stages.make_smaller if recipe.prune.method in SMALLER else prune_stages.prune_weights
    stage = Stage(
        name="model",
        group="prune",
        work=partial(work, unpruned=unpruned, engine=engine),
        needs=("data", "unpruned", *(("calibration",) if searched else ())),
        inputs={"data": data_digest} | ({"machine": machine_digest} if goal.kind == "latency" else {}),
        parameters={
            **data_parameters(recipe),
            "prune": asdict(recipe.prune),
            **({"multiple": recipe.channel_multiple} if recipe.prune.method == "channels" else {}),
            "train": asdict(recipe.train),
            "pixels": recipe.input.pixels,
            "own": bool(recipe.model.file),
            "backend": engine.backend,
            "devices": engine.devices,
            **({"softmax": recipe.export.softmax, **quantize_parameters(recipe)} if searched else {}),
        },
        tools=versions((*dict.fromkeys((*engine.tools, *(_CONVERSION_TOOLS if searched else ()))), "pillow")),
        packages=(
            *("prune", "train", "data", "pipeline/prune_stages.py", "pipeline/prune_steps.py"),
            *("pipeline/fine_tuning.py", *(_CONVERSION if searched else _MODELS)),
        ),
        resumable=True,
        chatty=True,
    )
    return stage, "model.keras"


def comparison_stage(recipe: Recipe, scheme: Scheme, *, unpruned: str, data_digest: str, machine_digest: str) -> Stage:
    """What the model was before: accuracy, bytes and time of its .tflite in `scheme`."""
    return Stage(
        name=COMPARISON,
        group="measure",
        work=partial(prune_stages.compare, unpruned=unpruned, scheme=scheme),
        needs=("data", "unpruned", *(("calibration",) if scheme.calibrated else ())),
        inputs={"data": data_digest, "machine": machine_digest},
        parameters={
            **data_parameters(recipe),
            "scheme": scheme.name,
            "pixels": recipe.input.pixels,
            "softmax": recipe.export.softmax,
            **quantize_parameters(recipe),
        },
        tools=versions((*_CONVERSION_TOOLS, "pillow")),
        packages=("data", "pipeline/prune_stages.py", *_CONVERSION),
        chatty=True,
        optional=True,
    )
