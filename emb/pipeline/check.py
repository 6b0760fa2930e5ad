"""What `emb check` says: whether a model keeps a target's contract, known before it is trained. Runs no model.

A recipe is converted with untrained weights, which decide neither operations nor sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emb.deploy import edgetpu
from emb.deploy.estimate import Estimate, estimate
from emb.errors import SpecError
from emb.graph import files
from emb.graph.arena import plan
from emb.graph.cost import cost
from emb.graph.model import Graph
from emb.graph.vocabulary import PRODUCTS
from emb.pipeline.deliverable import find
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.recipes import load_recipe, load_target
from emb.runtimes import RUNTIMES
from emb.spec.decode import parse_assignment
from emb.spec.placement import Placement
from emb.spec.recipe import Recipe
from emb.spec.target import Target
from emb.store import Artifact, Step, Store

# Of generated images; the ranges they give decide no operation and no size.
_CALIBRATION_IMAGES = 8
_MODEL, _LAYERS = "model.tflite", "layers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why the target cannot run the model as it should. operation: the one to blame, or ""."""

    what: str
    why: str
    fix: str
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """source: the file or recipe.  file_bytes: of the .tflite or .onnx file.  macs: of one inference.

    arena_bytes: planned for the activations, None if a shape is open.  fullest: the operation during which most are
    alive.  cached_bytes, streamed_bytes: parameters on the accelerator's chip, and those sent at every inference; a
    prediction, 0 without such an accelerator.
    """

    source: str
    target: Target
    placements: tuple[Placement, ...]
    file_bytes: int
    macs: int
    arena_bytes: int | None
    fullest: str
    cached_bytes: int
    streamed_bytes: int
    latency: Estimate | None
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `emb check --json`."""
        return {
            "source": self.source,
            "target": self.target.name,
            "fits": not self.faults,
            "faults": [asdict(fault) for fault in self.faults],
            "file_bytes": self.file_bytes,
            "macs": self.macs,
            "arena_bytes": self.arena_bytes,
            "fullest_operation": self.fullest,
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
            "latency_us": self.latency and asdict(self.latency),
            "placements": [asdict(placement) for placement in self.placements],
        }


def check(
    source: str,
    *,
    target: str,
    data_dir: Path | None = None,
    classes: int | None = None,
    assignments: Sequence[str] = (),
) -> Check:
    """Hold a .tflite or .onnx file, or what a recipe would become in int8, against a target's contract.

    source: a file, a build's directory, whose first int8 file is meant, or a recipe.
    data_dir, classes: as for `emb.pipeline.inspect.inspect`.  assignments: fields of the recipe, "input.shape=[…]".
    Raises ModelError, SpecError or DataError for what cannot be read; a model that does not fit is no error.
    """
    machine = load_target(target)
    path = Path(source)
    layers: tuple[str, ...] = ()
    if path.is_dir() or path.suffix.lower() in files.SUFFIXES:
        if classes is not None or assignments:
            raise SpecError(
                f"{'--set' if assignments else '--classes'} does not apply to {source}",
                why="a model that lies in a file is what it is",
                fix="leave it out, or give a recipe",
            )
        path = find(path).path
    else:
        converted = _converted(_recipe(source, assignments), data_dir=data_dir, classes=classes)
        path, layers = converted.path(_MODEL), tuple(read_json(converted.path(_LAYERS)))
    graph, file_bytes = files.read(path), path.stat().st_size
    return check_graph(graph, source=source, target=machine, file_bytes=file_bytes, layers=layers)


def check_graph(graph: Graph, *, source: str, target: Target, file_bytes: int, layers: Sequence[str] = ()) -> Check:
    """The same for a graph that was read. file_bytes: of its file.  layers: of the Keras model that it was made of."""
    arena = plan(graph, arena=target.arena)
    fullest = ""
    if arena and graph.operations:
        name = graph.operations[arena.fullest].name
        fullest = layer_of(name, layers) or name
    macs = cost(graph).macs
    placements, parameter_bytes = _placements(graph, target)
    placements = tuple(replace(placement, layer=layer_of(placement.operation, layers)) for placement in placements)
    cached_bytes = min(parameter_bytes, target.accelerator.cache_bytes)
    arena_bytes = arena.arena_bytes if arena else None
    faults = (
        *_format_faults(graph, source, target),
        *_memory_faults(source, target, file_bytes=file_bytes, arena_bytes=arena_bytes, fullest=fullest),
        *_placement_faults(source, target, placements),
    )
    return Check(
        source=source,
        target=target,
        placements=placements,
        file_bytes=file_bytes,
        macs=macs,
        arena_bytes=arena_bytes,
        fullest=fullest,
        cached_bytes=cached_bytes,
        streamed_bytes=parameter_bytes - cached_bytes,
        # The published latencies are those of networks that fit.
        latency=None if faults else estimate(macs, target.priors),
        faults=faults,
    )


def layer_of(operation: str, layers: Sequence[str]) -> str:
    """The Keras layer behind an operation's name in a .tflite file, or "".

    The converter joins the names of what it has fused with semicolons, the layer with weights last, and writes a layer
    as model/layer_1/part.
    """
    for part in reversed(operation.split(";")):
        for segment in reversed(part.split("/")):
            for name in (segment, segment.removesuffix("_1")):
                if name in layers:
                    return name
    return ""


def _placements(graph: Graph, target: Target) -> tuple[tuple[Placement, ...], int]:
    """Every operation's place, and the bytes of parameters that the accelerator wants to keep."""
    if target.accelerator.kind == "edge-tpu":
        mapping = edgetpu.predict(graph)
        return mapping.placements, mapping.parameter_bytes
    status = "runs on the processor"
    on_processor = (
        Placement(operation=operation.name, kind=operation.kind, device="cpu", status=status)
        for operation in graph.operations
    )
    return tuple(on_processor), 0


def _format_faults(graph: Graph, source: str, target: Target) -> list[Fault]:
    # A microcontroller has no runtime of a registry: TensorFlow Lite Micro reads .tflite.
    formats = {read for name in target.runtimes for read in RUNTIMES.get(name).FORMATS} or {"tflite"}
    if graph.format in formats:
        return []
    known = " and ".join(f".{name}" for name in sorted(formats))
    why = f"it has {', '.join(target.runtimes)}" if target.runtimes else "its runtime is TensorFlow Lite Micro"
    what = f"{source} is an .{graph.format} file; {target.name} runs {known}"
    return [Fault(what=what, why=why, fix="give the .tflite file of the same build")]


def _memory_faults(
    source: str, target: Target, *, file_bytes: int, arena_bytes: int | None, fullest: str
) -> list[Fault]:
    smaller = "take a smaller input or width, another scheme, or a target with more of it"
    if arena_bytes is None:
        return [
            Fault(
                what=f"the memory of {source} is not known before it runs",
                why="a shape in it is open",
                fix="export it with batch size 1 and a fixed height and width",
            )
        ]
    faults = []
    # On a microcontroller the weights are read where they lie, in flash; elsewhere they are loaded.
    loaded_bytes = 0 if target.flash_bytes else file_bytes
    need = arena_bytes + loaded_bytes
    if target.ram_bytes and need > target.ram_bytes:
        what = f"{source} needs {need:,} bytes of RAM at least; {target.name} has {target.ram_bytes:,}"
        why = f"{arena_bytes:,} bytes of activations, most of them around {fullest}, and {loaded_bytes:,} of the file"
        faults.append(Fault(what=what, why=why, fix=smaller, operation=fullest))
    if target.flash_bytes and file_bytes > target.flash_bytes:
        what = f"{source} needs {file_bytes:,} bytes of flash; {target.name} has {target.flash_bytes:,}"
        faults.append(Fault(what=what, why="the model is compiled into the program", fix=smaller))
    return faults


def _placement_faults(source: str, target: Target, placements: tuple[Placement, ...]) -> list[Fault]:
    """An accelerator must do all the multiplying; what stands behind the last product may stay on the processor."""
    if target.accelerator.kind == "none":
        return []
    lost = [placement for placement in placements if placement.device == "cpu"]
    if not any(placement.kind in PRODUCTS for placement in lost):
        return []
    first = lost[0]
    name = first.layer or first.operation
    count = len(placements) - len(lost)
    return [
        Fault(
            what=f"{count} of the {len(placements)} operations of {source} run on {target.name}'s accelerator",
            why=f"{first.kind} {name}: {first.status}" + (f" ({first.detail})" if first.detail else ""),
            fix=f"{edgetpu.remedy(first)}; until then every operation behind it runs on the processor as well",
            operation=first.operation,
        )
    ]


def _recipe(source: str, assignments: Sequence[str]) -> Recipe:
    if Path(source).suffix.lower() in (".keras", ".h5", ".hdf5"):
        raise SpecError(
            f"emb check does not convert {source}",
            why="what a model of one's own becomes follows from its build, with images to calibrate it",
            fix="emb build it with --no-train, and check the .tflite or .onnx file",
        )
    return load_recipe(source, changes=[parse_assignment(text) for text in assignments])


def _converted(recipe: Recipe, *, data_dir: Path | None, classes: int | None) -> Artifact:
    """The recipe's int8 .tflite with untrained weights and the names of its layers, from the store or made now."""
    from emb.pipeline.inspect import images_of
    from emb.pipeline.stage import code_digest, versions

    if recipe.model.file:
        raise SpecError(
            f"{recipe.name} builds a model that lies in a file",
            why="emb check converts the zoo's models with untrained weights; a file has weights of its own",
            fix=f"build it (emb build {recipe.name}), and check the .tflite or .onnx file",
        )
    shape, count = images_of(recipe, data_dir=data_dir, classes=classes)
    step = Step(
        name="check",
        parameters={
            "model": asdict(recipe.model),
            "shape": list(shape),
            "classes": count,
            "softmax": recipe.export.softmax,
        },
        tools=versions(("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer")),
        code=code_digest(("zoo", "layers", "export", "quantize", "graph", "pipeline/check.py")),
    )

    def work(folder: Path) -> None:
        _convert(recipe, folder, shape=shape, classes=count)

    return Store().run(step, work)


def _convert(recipe: Recipe, folder: Path, *, shape: tuple[int, int, int], classes: int) -> None:
    from emb.export import printing_to_log
    from emb.pipeline.engine import keras_on_tensorflow

    with keras_on_tensorflow(), printing_to_log():
        import keras

        from emb.export.source import open_source, without_softmax
        from emb.quantize import SCHEMES, quantize_tflite
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
        write_json(folder / _LAYERS, [layer.name for layer in model.layers])
        model.save(folder / "model.keras")
        source = open_source(folder / "model.keras")
        if recipe.export.softmax == "drop":
            source = without_softmax(source)
        source.write(folder / "float.tflite", file_format="tflite")
        images = rng.integers(0, 256, (_CALIBRATION_IMAGES, *shape), dtype=np.uint8)
        scheme = SCHEMES.get("int8").SCHEME
        quantize_tflite(folder / "float.tflite", folder / _MODEL, scheme=scheme, calibration=images)
        for name in ("model.keras", "float.tflite"):
            (folder / name).unlink()
