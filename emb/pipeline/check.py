"""What `emb check` says: whether a model keeps a target's contract, known before it is trained. Runs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emb.deploy import edgetpu
from emb.deploy.edgetpu_compiler import Compilation
from emb.deploy.estimate import estimate
from emb.errors import ModelError, SpecError
from emb.graph import files
from emb.graph.arena import plan
from emb.graph.cost import cost
from emb.graph.model import Graph
from emb.pipeline import edgetpu as edgetpu_check
from emb.pipeline import ethosu, untrained
from emb.pipeline.deliverable import find
from emb.pipeline.ethosu import CompiledFile
from emb.pipeline.recipes import load_recipe, load_target
from emb.runtimes import RUNTIMES
from emb.spec.decode import parse_assignment
from emb.spec.fit import Estimate, Fault
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.recipe import Recipe
from emb.spec.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """source: the file or recipe.  file_bytes: of the .tflite or .onnx file.  macs: of one inference.

    arena_bytes: planned for the activations, None if a shape is open.  fullest: the operation during which most are
    alive.  cached_bytes, streamed_bytes: parameters on the accelerator's chip, and those sent at every inference; a
    prediction, 0 without such an accelerator.
    npu: what Vela says of an Ethos-U, None on another target; what the processor does is not in it.
    compilation: what the Edge TPU's compiler made of the file, None where it is not at hand, or failed, which is a
    fault then.  compile_command: with which the file is compiled where the compiler is, if it is not here; else "".
    forms: arguments of the recipe's model that must change for the accelerator to take it, by name; None if it is not
    known what built the file.  forms_taken: those that `check` changed.
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
    npu: NpuEstimate | None = None
    compilation: Compilation | None = None
    compile_command: str = ""
    forms: Mapping[str, str] | None = None
    forms_taken: Mapping[str, str] = field(default_factory=dict)

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
            "npu": self.npu and asdict(self.npu),
            "placements": [asdict(placement) for placement in self.placements],
            "compiled": self.compilation and edgetpu_check.to_json(self.compilation),
            "compile_command": self.compile_command,
            "forms": self.forms,
            "forms_taken": self.forms_taken,
        }


def check(
    source: str,
    *,
    target: str,
    data_dir: Path | None = None,
    classes: int | None = None,
    assignments: Sequence[str] = (),
    forms: bool = False,
) -> Check:
    """Hold a .tflite or .onnx file, or what a recipe would become in int8, against a target's contract.

    source: a file, a build's directory, whose first int8 file is meant, or a recipe.
    data_dir, classes: as for `emb.pipeline.inspect.inspect`.  assignments: fields of the recipe, "input.shape=[…]".
    forms: change the recipe to the forms that the target's accelerator takes.
    Raises ModelError, SpecError or DataError for what cannot be read; a model that does not fit is no error.
    """
    machine = load_target(target)
    path = Path(source)
    layers: tuple[str, ...] = ()
    taken: Mapping[str, str] = {}
    if path.is_dir() or path.suffix.lower() in files.SUFFIXES:
        if classes is not None or assignments or forms:
            option = "--set" if assignments else "--classes" if classes is not None else "--forms"
            raise SpecError(
                f"{option} does not apply to {source}",
                why="a model that lies in a file is what it is",
                fix="leave it out, or give a recipe",
            )
        found = find(path)
        path, file, model = found.path, str(found.path), found.recipe.get("model", {})
    else:
        recipe = _recipe(source, assignments)
        if forms:
            recipe, taken = edgetpu_check.in_forms(recipe, machine)
        path, layers = _converted(recipe, data_dir=data_dir, classes=classes)
        file, model = f"{recipe.name}-int8.tflite", asdict(recipe.model)
    checked = check_model(path, source=source, file=file, target=machine, layers=layers, model=model)
    return replace(checked, forms_taken=taken)


def check_model(
    path: Path,
    *,
    source: str,
    file: str,
    target: Target,
    layers: Sequence[str] = (),
    model: Mapping[str, Any],
    compiled: CompiledFile | None = None,
    keep_in: Path | None = None,
) -> Check:
    """The same for a .tflite or .onnx file. source: what messages call it.  file: its path or name for the user.

    layers: of the Keras model that it was made of.  model: the recipe's [model] that built it; empty if not known.
    compiled: by Vela, if that was done already.  keep_in: a folder for what the Edge TPU's compiler makes of it.
    """
    graph, file_bytes = files.read(path), path.stat().st_size
    if target.accelerator.kind == ethosu.KIND:
        compiled = compiled or ethosu.compiled(path, target.accelerator)
    arena = plan(graph, arena=target.arena)
    fullest = ""
    if arena and graph.operations:
        name = graph.operations[arena.fullest].name
        fullest = layer_of(name, layers) or name
    macs = cost(graph).macs
    placements, parameter_bytes = _placements(graph, target, compiled)
    placements = tuple(replace(placement, layer=layer_of(placement.operation, layers)) for placement in placements)
    verdict = edgetpu_check.Verdict()
    if target.accelerator.kind == edgetpu_check.KIND:
        mapping = edgetpu.EdgeTpuMapping(placements=placements, parameter_bytes=parameter_bytes)
        verdict = edgetpu_check.verdict(
            mapping, path=path, source=source, file=file, target=target, model=model, keep_in=keep_in
        )
    cached_bytes = min(parameter_bytes, target.accelerator.cache_bytes)
    streamed_bytes = parameter_bytes - cached_bytes
    arena_bytes = arena.arena_bytes if arena else None
    if compiled is None:
        needs = _memory_faults(source, target, file_bytes=file_bytes, arena_bytes=arena_bytes, fullest=fullest)
    else:
        needs = ethosu.faults(source, target, compiled.estimate, placements, fullest=fullest)
    faults = (*_format_faults(graph, source, target), *needs, *verdict.faults)
    return Check(
        source=source,
        target=target,
        placements=placements,
        file_bytes=file_bytes,
        macs=macs,
        arena_bytes=arena_bytes,
        fullest=fullest,
        cached_bytes=cached_bytes,
        streamed_bytes=streamed_bytes,
        # The published latencies are those of networks that fit.
        latency=None if faults else estimate(macs, target.priors, streamed_bytes=streamed_bytes),
        faults=faults,
        npu=compiled.estimate if compiled else None,
        compilation=verdict.compilation,
        compile_command=verdict.compile_command,
        forms=verdict.forms,
    )


def require_fit(found: Check, *, otherwise: str = "") -> None:
    """Raises ModelError, naming the layer and the remedy, if what was checked does not fit its target.

    otherwise: what the user can do besides mending it.
    """
    if not found.faults:
        return
    whys = [f"{fault.what}: {fault.why}" if number else fault.why for number, fault in enumerate(found.faults)]
    fixes = dict.fromkeys(fault.fix for fault in found.faults)
    raise ModelError(
        found.faults[0].what,
        why="\n       ".join(whys),
        fix="\n       ".join((*fixes, *filter(None, [otherwise]))),
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


def _placements(graph: Graph, target: Target, compiled: CompiledFile | None) -> tuple[tuple[Placement, ...], int]:
    """Every operation's place, and the bytes of parameters that the accelerator wants to keep."""
    if compiled is not None:
        return compiled.placements, 0
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


def _recipe(source: str, assignments: Sequence[str]) -> Recipe:
    if Path(source).suffix.lower() in (".keras", ".h5", ".hdf5"):
        raise SpecError(
            f"emb check does not convert {source}",
            why="what a model of one's own becomes follows from its build, with images to calibrate it",
            fix="emb build it with --no-train, and check the .tflite or .onnx file",
        )
    return load_recipe(source, changes=[parse_assignment(text) for text in assignments])


def _converted(recipe: Recipe, *, data_dir: Path | None, classes: int | None) -> tuple[Path, tuple[str, ...]]:
    from emb.pipeline.inspect import images_of

    if recipe.model.file:
        raise SpecError(
            f"{recipe.name} builds a model that lies in a file",
            why="emb check converts the zoo's models with untrained weights; a file has weights of its own",
            fix=f"build it (emb build {recipe.name}), and check the .tflite or .onnx file",
        )
    shape, count = images_of(recipe, data_dir=data_dir, classes=classes)
    return untrained.model_of(untrained.converted(recipe, shape=shape, classes=count))
