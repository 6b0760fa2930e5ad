"""Measures a deployed bundle on its board, by the board's own run.py. Knows no connection: it is handed a channel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from emb.bench import top1
from emb.bench.board import doubts
from emb.errors import ModelError, RuntimeFailure, SpecError
from emb.pipeline.bench import fixed_fields
from emb.pipeline.bundle_source import SAME_BITS_EVERYWHERE, contract_of
from emb.pipeline.deliverable import Deliverable, find_all
from emb.pipeline.json_files import replace_text
from emb.pipeline.measured_on import images_for
from emb.runtimes import RUNTIMES, open_runtime, to_input, to_scores
from emb.spec.board import BoardMachine, BoardRun
from emb.spec.contract import Pixels, TensorContract
from emb.spec.dataset import Images
from emb.spec.decode import decode
from emb.spec.latency import LatencySummary
from emb.spec.measurement import Accuracy
from emb.spec.report import BoardReport, Row
from emb.store import explained

LEAST_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
T = TypeVar("T")


class Channel(Protocol):
    """Runs run.py of the bundle on the board.

    arguments: of run.py.  stdin: what it is given, in pieces, made while they are sent.
    Returns everything that it writes to its stdout; see `emb.deploy.exchange.exchange`. Raises an EmbError if the board
    cannot be reached or run.py fails.
    """

    def __call__(self, arguments: Sequence[str], stdin: Iterable[bytes] = ()) -> bytes: ...


def bench_on_board(
    build: Path,
    channel: Channel,
    *,
    device: str,
    data: str | None = None,
    data_dir: Path | None = None,
    runtime: str | None = None,
    mode: str | None = None,
    seconds: float = LEAST_SECONDS,
    most_images: int | None = None,
) -> BoardReport:
    """Latency with one thread and with all, and accuracy over test images that are streamed to the board.

    build: a build's directory, or a model file of it; the bundle on the board must be of it.
    device: what the report calls the board.  data, data_dir: as for `emb bench`.
    runtime, mode: others than the bundle's.  seconds: of each latency measurement.
    most_images: at most so many of the test images, taken evenly.
    Raises EmbError.
    """
    way = [*(["--runtime", runtime] if runtime else []), *(["--mode", mode] if mode else [])]
    machine = _document(channel(["info", "--json"]), BoardMachine, device)
    first = _run(channel, device, way, seconds=seconds, threads=1)
    # Asked for by their number: what run.py takes for all is then what stands in the report.
    more = [_run(channel, device, way, seconds=seconds, threads=machine.cores)] if machine.cores > 1 else []
    runs = (first, *more)
    deliverable = _deployed(build, first, device)
    measured_on = images_for(deliverable, data=data, data_dir=data_dir)
    images, labels, taken = _some(measured_on.views[0], measured_on.labels, most_images)
    outputs = _predictions(channel, deliverable, images, device, [*way, "--threads", str(machine.cores)])
    tensor = contract_of(deliverable).models[0].output
    accuracy = None if labels is None else top1(to_scores(outputs, tensor), labels)
    return BoardReport(
        device=device,
        machine=machine.title,
        model=deliverable.path.name,
        images=f"{taken}{measured_on.name}",
        rows=tuple(_row(deliverable, run, accuracy, device) for run in runs),
        runs=runs,
        identical=_identical(deliverable, images, outputs, runtime=first.runtime, mode=first.mode),
        compared=len(images),
        notes=tuple(dict.fromkeys(f"{_threads(run.threads)}: {doubt}" for run in runs for doubt in doubts(run))),
    )


def save(report: BoardReport, directory: Path) -> tuple[Path, Path]:
    """Keep a report, raw samples and all, as <device>.json, and to be read as <device>.md. Raises StoreError."""
    from emb.report.board import markdown

    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", report.device).strip("-.") or "board"
    texts = {f"{stem}.json": json.dumps(report.to_json()) + "\n", f"{stem}.md": markdown(report)}
    with explained("write", directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            replace_text(directory / name, text)
    return directory / f"{stem}.json", directory / f"{stem}.md"


def _run(channel: Channel, device: str, way: Sequence[str], *, seconds: float, threads: int) -> BoardRun:
    call = ["bench", "--json", "--seconds", f"{seconds:g}", "--threads", str(threads), *way]
    return _document(channel(call), BoardRun, device)


def _document(content: bytes, kind: type[T], device: str) -> T:
    """What run.py said, which is believed only if it has the form that is agreed on. Raises RuntimeFailure."""
    try:
        table = json.loads(content)
        return decode(kind, table if isinstance(table, dict) else {}, source="its answer")
    except (ValueError, RecursionError, SpecError) as error:
        raise RuntimeFailure(
            f"{device} gives no measurement",
            why=str(error).replace("\n", "\n       "),
            fix="deploy the bundle again with this version of emb",
        ) from error


def _deployed(build: Path, run: BoardRun, device: str) -> Deliverable:
    """The model of the build that the board runs. Raises ModelError if it runs another one."""
    for deliverable in find_all(build):
        models = contract_of(deliverable).models if (deliverable.path.parent / "contract.json").is_file() else ()
        if models and models[0].sha256 == run.sha256:
            return deliverable
    raise ModelError(
        f"{device} runs another model than {build}",
        why=f"it runs {run.model} of {run.name}, sha256 {run.sha256}",
        fix="deploy this build first, or name the build that is there",
    )


def _some(
    images: Images, labels: NDArray[np.int64] | None, most: int | None
) -> tuple[Images, NDArray[np.int64] | None, str]:
    """At most `most` images, taken evenly, as test images may be sorted by class; and how to say so."""
    total = len(images)
    if most is None or most >= total:
        return images, labels, ""
    chosen = np.arange(most) * total // most
    few = np.stack([np.asarray(images[int(index) : int(index) + 1])[0] for index in chosen])
    return few, None if labels is None else labels[chosen], f"{most:,} of "


def _predictions(
    channel: Channel, deliverable: Deliverable, images: Images, device: str, way: Sequence[str]
) -> NDArray[Any]:
    """The raw outputs: (n, *output.shape[1:]) in the output's dtype."""
    tensor = contract_of(deliverable).models[0].output
    dtype, shape = np.dtype(tensor.dtype), (len(images), *tensor.shape[1:])
    content = channel(["predict", *way], _frames(images))
    if len(content) != int(np.prod(shape)) * dtype.itemsize:
        raise RuntimeFailure(
            f"{device} did not answer every image",
            why=f"{len(images):,} images make {int(np.prod(shape)) * dtype.itemsize:,} bytes; {len(content):,} came",
            fix="look at the board: the connection or the memory may not have lasted",
        )
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _frames(images: Images) -> Iterator[bytes]:
    step = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        yield np.ascontiguousarray(images[start : start + step], dtype=np.uint8).tobytes()


def _identical(
    deliverable: Deliverable, images: Images, outputs: NDArray[Any], *, runtime: str, mode: str
) -> int | None:
    """How many outputs have the bits that the runtime gives here."""
    if (runtime, mode) not in SAME_BITS_EVERYWHERE or RUNTIMES.get(runtime).absence() is not None:
        return None
    contract = contract_of(deliverable)
    if contract.models[0].float_layers:
        return None
    equal = 0
    step = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))
    with open_runtime(runtime, model=deliverable.path, mode=mode) as process:
        for start in range(0, len(images), step):
            inputs = _inputs(images[start : start + step], contract.models[0].input, contract.pixels)
            here = process.run_each(inputs)
            there = outputs[start : start + step]
            equal += sum(one.tobytes() == other.tobytes() for one, other in zip(here, there, strict=True))
    return equal


def _inputs(images: Images, tensor: TensorContract, pixels: Pixels) -> NDArray[Any]:
    return to_input(np.asarray(images, dtype=np.uint8), tensor, pixels)


def _row(deliverable: Deliverable, run: BoardRun, accuracy: Accuracy | None, device: str) -> Row:
    latency = LatencySummary(
        median_us=run.median_us,
        p90_us=run.p90_us,
        p99_us=run.p99_us,
        runs=len(run.latency_ns),
        threads=run.threads,
    )
    return Row(
        **fixed_fields(deliverable),
        runtime=run.runtime,
        mode=run.mode,
        source=f"measured on {device}",
        accuracy=accuracy.accuracy if accuracy else None,
        accuracy_low=accuracy.low if accuracy else None,
        accuracy_high=accuracy.high if accuracy else None,
        latency=latency,
        peak_memory_bytes=run.peak_memory_bytes,
    )


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
