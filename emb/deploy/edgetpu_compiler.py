"""Runs Google's edgetpu_compiler on an int8 .tflite, and holds what it says against emb's prediction.

The compiler is closed, and for Linux on x86-64 alone: emb runs it where somebody has put it, and brings none. Knows its
options and the names of its files, and no board.
Source: Coral, "Edge TPU Compiler", tables of options and of output files.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emb.deploy.edgetpu import DEVICE, MAPPED, SECOND_SUBGRAPH, EdgeTpuMapping
from emb.deploy.edgetpu_log import CompilerLog, parse, reason_of
from emb.errors import ExportError
from emb.spec.placement import Placement

NAME = "edgetpu_compiler"
RUNTIME_VERSION = 14
"""The least version of the Edge TPU's runtime on the board: that whose operations emb's prediction knows."""
TIMEOUT_S = 600
"""The compiler's own limit of 180 s is short for the largest networks."""

_MOST_PARAMETERS = 1.25
"""Times the predicted bytes: public logs show 1.02 to 1.23, of sizes rounded to two decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where the compiler disagrees. subject: a kind of operation, "subgraphs" or "parameters"."""

    subject: str
    predicted: str
    compiled: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """model: the compiled file, in the folder that was given.  log: what the compiler says.  prediction: emb's."""

    model: Path
    log: CompilerLog
    prediction: EdgeTpuMapping

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Empty where everything is as predicted."""
        return (*_kinds(self.prediction, self.log), *_subgraphs(self.log), *_parameters(self.prediction, self.log))

    @property
    def first_on_cpu(self) -> Placement | None:
        """The operation that ends the Edge TPU's part, None if all of it is mapped; see `first_lost`."""
        return first_lost(self.prediction.placements, self.log)


def find() -> Path | None:
    """Where the compiler lies on the PATH, or None."""
    found = shutil.which(NAME)
    return Path(found) if found else None


def command_line(model: str, folder: str, *, timeout_s: int = TIMEOUT_S) -> list[str]:
    """The command that writes the compiled model and its log into `folder`."""
    return [NAME, "-s", "-m", str(RUNTIME_VERSION), "-t", str(timeout_s), "-o", folder, model]


def compile_model(
    model: Path, folder: Path, *, name: str, prediction: EdgeTpuMapping, compiler: Path, timeout_s: int = TIMEOUT_S
) -> Compilation:
    """Compile an int8 .tflite into `folder`, which exists and is the caller's.

    name: what messages call the model.  prediction: of the same model.
    Raises ExportError if the compiler fails, takes longer, leaves a file out, says what is not understood, or maps
    nothing: what runs on the processor alone is no model for an Edge TPU.
    """
    command = [str(compiler), *command_line(str(model), str(folder), timeout_s=timeout_s)[1:]]
    output = _run(command, name=name, timeout_s=timeout_s)
    compiled, log = (folder / f"{model.stem}_edgetpu{suffix}" for suffix in (".tflite", ".log"))
    for path in (compiled, log):
        if not path.is_file():
            raise _failed(name, f"it wrote no {path.name}; its last words: {reason_of(output) or 'none'}")
    found = parse(output=output, log=log.read_text(encoding="utf-8", errors="replace"))
    if found.mapped == 0:
        raise _nothing_mapped(name, first_lost(prediction.placements, found), count=found.operations)
    return Compilation(model=compiled, log=found, prediction=prediction)


def first_lost(placements: Iterable[Placement], log: CompilerLog) -> Placement | None:
    """The first operation that runs on the processor, with the log's status of it; None if there is none.

    The log counts kinds and names no operation: of a kind that is mapped in part, those count as lost that the
    prediction has lost too. Where that tells nothing, the operation has a kind and no name.
    """
    # What merely stands behind another one is not the first.
    ordered = sorted(log.rows, key=lambda row: row.status != SECOND_SUBGRAPH)
    status = {row.kind: row.status for row in ordered if row.status != MAPPED}
    if not status:
        return None
    own = {kind for kind, found in status.items() if found != SECOND_SUBGRAPH} or set(status)
    in_part = {row.kind for row in log.rows if row.status == MAPPED}
    for placement in placements:
        if placement.kind in own and (placement.kind not in in_part or placement.device != DEVICE):
            return replace(placement, device="cpu", status=status[placement.kind])
    kind = next(row.kind for row in log.rows if row.kind in own)
    return Placement(operation="", kind=kind, device="cpu", status=status[kind])


def _run(command: Sequence[str], *, name: str, timeout_s: int) -> str:
    """What the command prints."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise _failed(name, f"{command[0]} does not start: {(error.strerror or '').lower()}") from error
        try:
            code = process.wait(timeout_s)
        except BaseException as error:
            # It works in a child of its own, which would go on: the whole group has to end.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _failed(name, f"it took longer than {timeout_s} s") from None
            raise
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
    if code != 0:
        raise _failed(name, reason_of(text) or f"it ended with exit code {code} and said nothing")
    return text


def _failed(name: str, why: str) -> ExportError:
    return ExportError(
        f"edgetpu_compiler did not compile {name}",
        why=why,
        fix="take a smaller input or width if it is for size or time; the int8 model itself runs on the processor",
    )


def _nothing_mapped(name: str, first: Placement | None, *, count: int) -> ExportError:
    what = "none" if first is None else f"{first.kind} {first.layer or first.operation}".strip()
    return ExportError(
        f"edgetpu_compiler maps 0 of the {count} operations of {name} to the Edge TPU",
        why=f"{what}: {first.status}" if first else "its table is empty",
        fix="replace that layer, and compile again; what it wrote would run on the processor alone",
    )


def _kinds(prediction: EdgeTpuMapping, log: CompilerLog) -> Iterator[Difference]:
    predicted: dict[str, Counter[str]] = {}
    for placement in prediction.placements:
        predicted.setdefault(placement.kind, Counter())[placement.status] += 1
    compiled: dict[str, Counter[str]] = {}
    for row in log.rows:
        compiled.setdefault(row.kind, Counter())[row.status] += row.count
    for kind in sorted(predicted | compiled):
        ours, theirs = predicted.get(kind, Counter()), compiled.get(kind, Counter())
        if ours != theirs:
            yield Difference(subject=kind, predicted=_counts(ours), compiled=_counts(theirs))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"


def _subgraphs(log: CompilerLog) -> Iterator[Difference]:
    if log.subgraphs != 1:
        yield Difference(subject="subgraphs", predicted="1", compiled=str(log.subgraphs))


def _parameters(prediction: EdgeTpuMapping, log: CompilerLog) -> Iterator[Difference]:
    """The prediction is a least figure. Two decimals of MiB hide up to a hundredth of one in each of two sizes."""
    compiled_bytes, rounding_bytes = log.on_chip_bytes + log.off_chip_bytes, 2 * 2**20 // 100
    least, most = prediction.parameter_bytes - rounding_bytes, _MOST_PARAMETERS * prediction.parameter_bytes
    if not least <= compiled_bytes <= most + rounding_bytes:
        yield Difference(
            subject="parameters",
            predicted=f"{prediction.parameter_bytes:,} bytes or up to {_MOST_PARAMETERS:g} times as many",
            compiled=f"{compiled_bytes:,} bytes",
        )
