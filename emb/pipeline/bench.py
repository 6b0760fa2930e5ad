"""Measures model files that are there already: latency, memory and, with test images, accuracy. Keeps nothing."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import describe_machine, free_memory_bytes, judge, top1
from emb.bench.crops import require_count
from emb.bench.energy import Counters, counters
from emb.bench.machine import is_virtual
from emb.bench.rounds import cold_start_us_of, energy_uj_of, peak_memory_bytes_of, summary_of
from emb.errors import DataError, EmbError, SpecError
from emb.graph.cost import cost
from emb.pipeline.deliverable import Deliverable, find_all
from emb.pipeline.measured_on import TIMED_IMAGES, MeasuredOn, images_for
from emb.pipeline.measuring import too_long_on_reference_kernels, ways_to_run
from emb.pipeline.rounds import MEASURE_S, ROUNDS, Way, take_turns, together
from emb.pipeline.scoring import normalised, probabilities
from emb.pipeline.threads import threads_of
from emb.registry import nearest
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels
from emb.spec.dataset import Images
from emb.spec.latency import Round, Throughput
from emb.spec.measurement import Machine
from emb.spec.report import BenchReport, Row

# Of the cores, as the load average counts them; more than that is somebody else's work.
BUSY = 0.5
# Of the memory that is free, which the processes of one throughput may take.
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A row before its times are taken. way: None if they will not be; error: what went wrong, or ""."""

    fields: dict[str, Any]
    way: Way | None = None
    error: str = ""


def bench(
    model: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    runtime: str | None = None,
    threads: str | None = None,
    pixels: Pixels | None = None,
    crops: int | None = None,
    rounds: int = ROUNDS,
    told: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Measure a .tflite or .onnx file, or every file of a build, on every runtime present (or on `runtime` alone).

    data: a data set's name, a folder or a .npz; without it that of the file's own build; without one, no accuracy.
    threads: a number, "all", or None for a row with one thread and one with all.
    crops: average over so many crops of each image (1, 5 or 10) instead of the whole image.
    rounds: fresh processes of each row, taken in turn.  told: hears what is done next.
    What fails on one runtime stands in `errors`. Raises EmbError for everything else.
    """
    before = describe_machine()
    counts = threads_of(threads, cores=before.cores)
    if rounds < 1:
        raise SpecError(f"--rounds cannot be {rounds}", fix="give 1 or more; from 6 on there is an interval")
    if crops is not None:
        require_count(crops)
    lines: list[_Line] = []
    names = []
    for deliverable in _run_by(runtime, find_all(model, pixels=pixels)):
        images = images_for(deliverable, data=data, data_dir=data_dir, crops=crops)
        names.append(images.name)
        told(f"scores of {deliverable.path.name}")
        lines += _lines_of(deliverable, images, only=runtime, threads=counts)
    energy = counters()
    lines = _timed(lines, rounds=rounds, counters=energy, told=told)
    lines, notes = _filled(lines, cores=before.cores, told=told)
    return BenchReport(
        model=str(model),
        images=names[0],
        rows=tuple(Row(**line.fields) for line in lines),
        errors=tuple(line.error for line in lines if line.error),
        machine=before.title,
        protocol=_protocol(rounds),
        notes=(*busy_notes(before), *_short_notes(lines, rounds), *dict.fromkeys(notes), _energy_note(energy)),
        load_before=before.load_average,
        load_after=describe_machine().load_average,
    )


def _run_by(runtime: str | None, files: Sequence[Deliverable]) -> list[Deliverable]:
    """Those that it runs, of a build with files of several formats; all for None. Raises SpecError if it runs none."""
    names = [[name for name, *_ in _ways_of(file)] for file in files]
    kept = [file for file, known in zip(files, names, strict=True) if runtime is None or runtime in known]
    if not kept:
        listed = ", ".join(file.path.name for file in files)
        known = sorted({name for found in names for name in found})
        raise SpecError(f"{runtime!r} does not run {listed}", fix=nearest(str(runtime), known))
    return kept


def _ways_of(deliverable: Deliverable) -> list[tuple[str, str, str]]:
    integer_only = "int8" in deliverable.scheme or "int16" in deliverable.scheme
    return ways_to_run(deliverable.format, scheme=deliverable.scheme, with_reference_kernels=integer_only)


def _lines_of(
    deliverable: Deliverable, images: MeasuredOn, *, only: str | None, threads: tuple[int, ...]
) -> list[_Line]:
    """With the accuracy, which comes before any time is taken: what cannot be run need not be timed."""
    ways = [way for way in _ways_of(deliverable) if only in (None, way[0])]
    fixed = fixed_fields(deliverable)
    lines = []
    for name, mode, absence in ways:
        fields = {**fixed, "runtime": name, "mode": mode}
        count = 1 if images.labels is None else len(images.labels) * len(images.views)
        if reason := absence or too_long_on_reference_kernels(mode, macs=fixed["macs"], images=count):
            lines.append(_Line(fields={**fields, "source": f"not measured: {reason}"}))
            continue
        try:
            fields |= accuracy_fields(deliverable, images, runtime=name, mode=mode)
        except DataError:  # an image that is streamed and cannot be decoded: no row would have an accuracy
            raise
        except EmbError as error:
            lines.append(_failed(fields, error))
            continue
        lines += [
            _Line(fields={**fields, "source": "measured"}, way=_way(deliverable, images, name, mode, threads=count))
            for count in (threads if mode == "default" else (1,))  # reference kernels know no threads
        ]
    return lines


def _way(deliverable: Deliverable, images: MeasuredOn, runtime: str, mode: str, *, threads: int) -> Way:
    return Way(
        path=deliverable.path,
        runtime=runtime,
        mode=mode,
        threads=threads,
        images=images.views[0][:TIMED_IMAGES],
        pixels=deliverable.pixels,
    )


_NOT_OF_A_FAILED_ROW = ("accuracy", "accuracy_low", "accuracy_high", "top5", "expected_calibration_error")


def _failed(fields: dict[str, Any], error: EmbError) -> _Line:
    kept = {key: value for key, value in fields.items() if key not in _NOT_OF_A_FAILED_ROW}
    return _Line(
        fields={**kept, "source": f"not measured: {error.what}"},
        error=f"{fields['file']} on {fields['runtime']} ({fields['mode']}): {' '.join(str(error).split())}",
    )


def _timed(lines: list[_Line], *, rounds: int, counters: Counters, told: Callable[[str], None]) -> list[_Line]:
    """With the latency of each line that has a way."""
    ways = [line.way for line in lines if line.way is not None]
    taken = iter(
        take_turns(
            ways,
            rounds=rounds,
            counters=counters,
            told=lambda number: told(f"round {number} of {rounds}, {len(ways)} rows"),
        )
    )
    return [line if line.way is None else _with_times(line, line.way, next(taken)) for line in lines]


def _with_times(line: _Line, way: Way, found: list[Round] | EmbError) -> _Line:
    if isinstance(found, EmbError):
        return _failed(line.fields, found)
    measured = {
        "latency": summary_of(found, threads=way.threads, virtual=is_virtual()),
        "peak_memory_bytes": peak_memory_bytes_of(found),
        "cold_start_us": cold_start_us_of(found),
        "energy_uj": energy_uj_of(found),
    }
    return _Line(fields=line.fields | measured, way=way)


def _filled(lines: list[_Line], *, cores: int, told: Callable[[str], None]) -> tuple[list[_Line], list[str]]:
    """(lines with the throughput of the whole machine, why some have none). Reference kernels have none."""
    filled, notes = [], []
    for line in lines:
        found: Throughput | str | None = None
        if line.way is not None and line.way.mode == "default":
            told(f"throughput of {line.fields['file']} on {line.way.runtime}, {line.way.threads} threads")
            found = _throughput(line, line.way, cores=cores)
        if isinstance(found, str):
            notes.append(found)
            found = None
        filled.append(_Line(fields=line.fields | {"throughput": found}, way=line.way, error=line.error))
    return filled, notes


def _throughput(line: _Line, way: Way, *, cores: int) -> Throughput | str:
    """Or why it was not measured."""
    processes = max(1, cores // way.threads)
    needed, free = processes * (line.fields["peak_memory_bytes"] or 0), free_memory_bytes()
    name = f"throughput of {way.path.name} on {way.runtime} not measured"
    if processes > 1 and free is not None and needed > _MEMORY_SHARE * free:
        return f"{name}: {processes} processes take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    try:
        return together(way, processes=processes, run_s=line.fields["latency"].median_us / 1e6)
    except EmbError as error:
        return f"{name}: {error.what}"


def _protocol(rounds: int) -> str:
    return (
        f"{rounds} rounds with a fresh process for each row in turn, {MEASURE_S:g} s a row after warm-up; "
        "images/s: of all cores together"
    )


def _short_notes(lines: list[_Line], rounds: int) -> list[str]:
    """Which rows had fewer rounds than the others, because they would have taken too long."""
    notes = []
    for line in lines:
        taken = len(line.fields["latency"].round_medians_us) if "latency" in line.fields else rounds
        if taken < rounds:
            name = f"{line.fields['file']} on {line.fields['runtime']} ({line.fields['mode']})"
            notes.append(f"{name}: {taken} round{'s' * (taken > 1)} of {rounds}, as more would take over a minute")
    return notes


def _energy_note(energy: Counters) -> str:
    if energy.absence:
        return f"energy: not measured: {energy.absence}"
    return "energy: of the processor's whole package, by its RAPL counter, idle power and other work included"


def busy_notes(machine: Machine) -> tuple[str, ...]:
    """What else the machine does. machine: before anything is measured."""
    load = machine.load_average
    if load is None or load <= BUSY * machine.cores:
        return ()
    return (f"the machine was busy before: load {load:.2f} on {machine.cores} core{'s' * (machine.cores > 1)}",)


def fixed_fields(deliverable: Deliverable) -> dict[str, Any]:
    """What a file is, whatever runs it."""
    content = deliverable.path.read_bytes()
    total = cost(deliverable.graph)
    return {
        "file": deliverable.path.name,
        "format": deliverable.format,
        "scheme": deliverable.scheme,
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, compresslevel=9, mtime=0)),
        "parameters": total.parameters,
        "macs": total.macs,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def accuracy_fields(deliverable: Deliverable, images: MeasuredOn, *, runtime: str, mode: str) -> dict[str, Any]:
    """Those of a row that say how often the file is right; none for images without labels. Raises EmbError."""
    if images.labels is None:
        return {}
    with open_runtime(runtime, model=deliverable.path, mode=mode) as process:
        scores, chances = _scores(process, deliverable, images.views)
    accuracy = top1(scores, images.labels)
    judgement = judge(scores, chances, images.labels)
    return {
        "accuracy": accuracy.accuracy,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "top5": judgement.top5,
        "expected_calibration_error": judgement.expected_calibration_error,
    }


def _scores(
    process: Any, deliverable: Deliverable, views: tuple[Images, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scores, probabilities): one view is judged by what the file gives; a mean needs probabilities."""
    if len(views) == 1:
        scores = process.scores(views[0], pixels=deliverable.pixels)
        return scores, normalised(scores, deliverable)
    mean = probabilities(process, deliverable, views)
    return mean, mean
