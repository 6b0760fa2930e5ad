"""Compiles a .tflite file for an Arm Ethos-U with Arm's Vela, in a process of its own. Knows no board and no store.

Vela's own words and figures are passed on: they come from its model of the hardware, and nothing here is measured.
What it leaves to the processor is read from the file that it writes, and why, from what it prints.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emb.errors import ExportError, ModelError, RuntimeFailure
from emb.graph import files
from emb.graph.model import Graph, Operation
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.target import Accelerator

DISTRIBUTION = "ethos-u-vela"
DEVICE = "ethos-u"
PLACED = "Placed on the NPU"
UNEXPLAINED = "Left to the CPU"

_NATIVE = "ethos-u"  # the custom operation that stands for all that was compiled
_CONFIGURATION_FILE = "Arm/vela.ini"
_KIBIBYTE = 1024
_LAST_LINES = 3
_WARNING = re.compile(r"^Warning \([^)]*\) operator: (?P<kind>\S+), ofm: '(?P<name>.*)'$")
_REASON = re.compile(r"^Reason: (?P<reason>.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """model: the compiled .tflite file's bytes.  placements: of the operations of the file that was given."""

    model: bytes
    estimate: NpuEstimate
    placements: tuple[Placement, ...]


def compile_model(path: Path, accelerator: Accelerator, *, timeout_s: float = 900.0) -> Compiled:
    """Compile the .tflite file at `path` for an Ethos-U.

    accelerator: of kind "ethos-u"; its sram_bytes is what Vela is told that it may use.
    A file that does not fit, or of which nothing runs on the NPU, is compiled all the same: the figures say so.
    Raises ModelError for a file of another format or one that is compiled already, ExportError if Vela fails,
    RuntimeFailure if it is not installed.
    """
    graph = files.read(path)
    if graph.format != "tflite":
        raise ModelError(
            f"{path.name} is no .tflite file",
            why="Vela, the Ethos-U's compiler, reads nothing else",
            fix="give the int8 .tflite of the same model",
        )
    if any(operation.native == _NATIVE for operation in graph.operations):
        raise ModelError(
            f"{path.name} is compiled for an Ethos-U already",
            why=f"it holds the operation {_NATIVE}",
            fix="give the file that it was compiled from",
        )
    compiler = f"Vela {_version()}"
    with tempfile.TemporaryDirectory(prefix="emb-vela-") as folder:
        printed = _run(path, accelerator, Path(folder), timeout_s=timeout_s)
        compiled = Path(folder) / f"{path.stem}_vela.tflite"
        summaries = list(Path(folder).glob("*_summary_*.csv"))
        if not compiled.is_file() or len(summaries) != 1:
            raise _failed(path, printed)
        model = compiled.read_bytes()
        placements = _placements(graph, files.read(compiled), reasons(printed))
        figures = _figures(summaries[0])
    try:
        estimate = _estimate(figures, compiler=compiler, file_bytes=len(model))
    except (KeyError, ValueError) as error:
        raise ExportError(
            f"the summary of {compiler} cannot be read",
            why=f"{type(error).__name__}: {error}",
            fix="install the version of ethos-u-vela that emb asks for",
        ) from error
    return Compiled(model=model, estimate=estimate, placements=placements)


def reasons(printed: str) -> dict[str, tuple[str, str]]:
    """Name of an operation's output -> (Vela's reason to leave it to the processor, its remark), from its log."""
    found: dict[str, tuple[str, str]] = {}
    name = ""
    for line in printed.splitlines():
        if warned := _WARNING.match(line):
            name = warned["name"]
        elif name and (reason := _REASON.match(line)):
            found[name] = (reason["reason"].strip(), "")
        elif name in found and line.strip():
            found[name] = (found[name][0], " ".join(filter(None, (found[name][1], line.strip()))))
        else:
            name = ""
    return found


def remedy(placement: Placement) -> str:
    """What to do about an operation that is left to the processor, in words."""
    if "unsupported DataType" in placement.status:
        return "give the int8 .tflite of the same model"
    return "replace that layer by one that Vela places on the NPU"


def _run(path: Path, accelerator: Accelerator, folder: Path, *, timeout_s: float) -> str:
    call = [
        *(sys.executable, "-P", "-m", "ethosu.vela", str(path.resolve())),
        *("--accelerator-config", accelerator.configuration),
        *("--config", _CONFIGURATION_FILE),
        *("--system-config", accelerator.system_config),
        *("--memory-mode", accelerator.memory_mode),
        *("--arena-cache-size", str(accelerator.sram_bytes)),
        *("--output-dir", str(folder)),
    ]
    try:
        done = subprocess.run(call, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"Vela did not finish {path.name} within {timeout_s:g} s", fix="compile a smaller model"
        ) from error
    if done.returncode:
        raise _failed(path, done.stdout + done.stderr)
    return done.stdout


def _failed(path: Path, printed: str) -> ExportError:
    words = [line for line in printed.splitlines() if line.strip()][-_LAST_LINES:]
    return ExportError(
        f"Vela could not compile {path.name}",
        why="\n       ".join(words),
        fix="check the accelerator of the target's file against Vela's Arm/vela.ini, and that the model is int8",
    )


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        raise RuntimeFailure(
            "Vela, the compiler for the Ethos-U, is not installed",
            why=f"emb finds no {DISTRIBUTION} in its environment",
            fix=f"install it: pip install {DISTRIBUTION}",
        ) from None


def _figures(summary: Path) -> dict[str, str]:
    with summary.open(newline="", encoding="utf-8") as stream:
        return next(csv.DictReader(stream), {})


def _estimate(figures: Mapping[str, str], *, compiler: str, file_bytes: int) -> NpuEstimate:
    def storage_bytes(*memories: str) -> int:
        return round(sum(float(figures[f"{memory}_memory_used"]) for memory in memories) * _KIBIBYTE)

    return NpuEstimate(
        compiler=compiler,
        cycles=round(float(figures["cycles_total"])),
        clock_hz=round(float(figures["core_clock"])),
        latency_us=float(figures["inference_time"]) * 1e6,
        sram_bytes=storage_bytes("sram"),
        dram_bytes=storage_bytes("dram"),
        flash_bytes=storage_bytes("on_chip_flash", "off_chip_flash"),
        file_bytes=file_bytes,
    )


def _placements(graph: Graph, compiled: Graph, why: Mapping[str, tuple[str, str]]) -> tuple[Placement, ...]:
    """Every operation of `graph`; those that stand in the compiled file as they are run on the processor."""
    left = {_output(compiled, one): one for one in compiled.operations if one.native != _NATIVE}
    placements = []
    for operation in graph.operations:
        name = _output(graph, operation)
        placements.append(_on_cpu(operation, why.get(name)) if name in left else _on_npu(operation))
        left.pop(name, None)
    # What Vela put there itself; nothing that runs on the processor is passed over.
    return (*placements, *(_on_cpu(operation, why.get(name)) for name, operation in left.items()))


def _output(graph: Graph, operation: Operation) -> str:
    return graph.tensors[operation.outputs[0]].name if operation.outputs else operation.name


def _on_npu(operation: Operation) -> Placement:
    return Placement(operation=operation.name, kind=operation.kind, device=DEVICE, status=PLACED)


def _on_cpu(operation: Operation, why: tuple[str, str] | None) -> Placement:
    status, detail = why or (UNEXPLAINED, "")
    return Placement(operation=operation.name, kind=operation.kind, device="cpu", status=status, detail=detail)
