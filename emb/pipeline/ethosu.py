"""An Ethos-U's part in what is said of a model on a target: Vela, run once for each file, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emb.deploy import vela
from emb.graph.vocabulary import PRODUCTS
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.stage import code_digest, versions
from emb.spec.fit import Fault
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.target import Accelerator, Target
from emb.store import Artifact, Step, Store, sha256_of_file

KIND = "ethos-u"
CODE = ("deploy/vela.py", "graph", "spec", "pipeline/ethosu.py", "pipeline/json_files.py")
MODEL = "model_vela.tflite"
_FIGURES = "vela.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFile:
    """path: of the compiled .tflite, in the store."""

    path: Path
    estimate: NpuEstimate
    placements: tuple[Placement, ...]


def compiled(path: Path, accelerator: Accelerator, *, store: Store | None = None) -> CompiledFile:
    """What Vela makes of the .tflite file at `path`, from the store or made now. Raises what `compile_model` raises."""
    step = Step(
        name="vela",
        inputs={"model": sha256_of_file(path)},
        parameters=asdict(accelerator),
        tools=versions((vela.DISTRIBUTION,)),
        code=code_digest(CODE),
    )

    def work(folder: Path) -> None:
        write_compiled(path, accelerator, folder)

    return read_compiled((store or Store()).run(step, work))


def write_compiled(path: Path, accelerator: Accelerator, folder: Path) -> None:
    """model_vela.tflite, and vela.json with the figures and placements."""
    made = vela.compile_model(path, accelerator)
    (folder / MODEL).write_bytes(made.model)
    placements = [asdict(placement) for placement in made.placements]
    write_json(folder / _FIGURES, {"estimate": asdict(made.estimate), "placements": placements})


def read_compiled(artifact: Artifact) -> CompiledFile:
    """What `write_compiled` wrote."""
    figures = read_json(artifact.path(_FIGURES))
    return CompiledFile(
        path=artifact.path(MODEL),
        estimate=NpuEstimate(**figures["estimate"]),
        placements=tuple(Placement(**placement) for placement in figures["placements"]),
    )


def faults(
    source: str, target: Target, estimate: NpuEstimate, placements: Sequence[Placement], *, fullest: str
) -> list[Fault]:
    """What does not fit: a memory too small for what Vela counted, a multiplication that it leaves to the processor.

    What multiplies nothing may run on the processor. The runtime's own structures come on top of Vela's figures.
    fullest: the layer or operation around which most activations are alive.
    """
    return [
        *_memory_faults(source, target, estimate, fullest=fullest),
        *_placement_faults(source, target, placements),
    ]


def _memory_faults(source: str, target: Target, estimate: NpuEstimate, *, fullest: str) -> list[Fault]:
    needs = (
        ("SRAM", estimate.sram_bytes, target.accelerator.sram_bytes),
        ("DRAM", estimate.dram_bytes, target.ram_bytes),
        ("flash", estimate.file_bytes, target.flash_bytes),
    )
    return [
        Fault(
            what=f"{source} needs {need:,} bytes of {memory}; {target.name} has {limit:,}",
            why=f"{estimate.compiler} counts so for {target.accelerator.configuration}"
            + (f"; most activations are alive around {fullest}" if fullest and memory != "flash" else ""),
            fix="take a smaller input or width, or a target with more of it",
            operation="" if memory == "flash" else fullest,
        )
        for memory, need, limit in needs
        if limit and need > limit
    ]


def _placement_faults(source: str, target: Target, placements: Sequence[Placement]) -> list[Fault]:
    left = [placement for placement in placements if placement.device == "cpu"]
    products = [placement for placement in left if placement.kind in PRODUCTS]
    if not products:
        return []
    first = products[0]
    detail = f" ({first.detail})" if first.detail else ""
    count = len(placements) - len(left)
    return [
        Fault(
            what=f"{count} of the {len(placements)} operations of {source} run on {target.name}'s accelerator",
            why=f"{first.kind} {first.layer or first.operation}: {first.status}{detail}",
            fix=vela.remedy(first),
            operation=first.operation,
        )
    ]
