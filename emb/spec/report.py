"""What a build tells: one row per file, runtime and mode, as values. Knows no table and no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emb.spec.board import BoardRun
from emb.spec.fit import Estimate, Fault
from emb.spec.latency import LatencySummary, Throughput
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.pruned import Pruning
from emb.spec.repair import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One exported file on one runtime in one mode.

    accuracy, accuracy_low, accuracy_high: top-1 share over the whole test split, its 95 % Wilson interval, in [0, 1].
    top5: share whose label is among the five best, None for five classes or fewer.
    expected_calibration_error: in [0, 1]; 0 means that what the model is sure of to 90 % is right nine times in ten.
    agreement: share of test images on which the file and the Keras model give the same class.
    peak_memory_bytes: highest resident set of the runtime's own process.
    cold_start_us: to open the file and run it once, in a process that has the runtime's library.
    energy_uj: of the processor's whole package for each inference, by its own counter.
    source: "measured", "measured on " and the device, or "not measured: " and the reason; then every measured field
    is None.
    """

    file: str
    format: str
    scheme: str
    runtime: str
    mode: str
    bytes: int
    gzip_bytes: int
    parameters: int
    macs: int
    sha256: str
    source: str
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    top5: float | None = None
    expected_calibration_error: float | None = None
    agreement: float | None = None
    latency: LatencySummary | None = None
    peak_memory_bytes: int | None = None
    cold_start_us: float | None = None
    throughput: Throughput | None = None
    energy_uj: float | None = None

    @property
    def was_measured(self) -> bool:
        return self.source.startswith("measured")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Row:
        """The value whose `to_json` it is. Raises KeyError or TypeError for anything else."""
        times, throughput = document["latency_us"], document.get("throughput")
        others = {key: value for key, value in document.items() if key not in ("latency_us", "throughput")}
        return cls(
            **others,
            latency=times and LatencySummary.from_json(times),
            throughput=throughput and Throughput(**throughput),
        )

    def to_json(self) -> dict[str, Any]:
        """The row in the order and under the names that `emb build --json` promises."""
        return {
            "file": self.file,
            "format": self.format,
            "scheme": self.scheme,
            "runtime": self.runtime,
            "mode": self.mode,
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_low,
            "accuracy_high": self.accuracy_high,
            "top5": self.top5,
            "expected_calibration_error": self.expected_calibration_error,
            "agreement": self.agreement,
            "latency_us": self.latency and self.latency.to_json(),
            "cold_start_us": self.cold_start_us,
            "throughput": self.throughput and asdict(self.throughput),
            "energy_uj": self.energy_uj,
            "peak_memory_bytes": self.peak_memory_bytes,
            "sha256": self.sha256,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatAgreement:
    """How far the .tflite and the .onnx of one scheme are one model.

    share: of the test images, in [0, 1], on which both give the same class; the least over all pairs of runtimes.
    """

    scheme: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """digest: sha256 (hex) of the data set's source files."""

    name: str
    train_images: int
    test_images: int
    digest: str

    @property
    def judges(self) -> str:
        """The test images, in words."""
        return f"{self.test_images:,} test images of {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport:
    """What the check of a build for a target found. Nothing of it was measured on the target.

    file: the file that the target would run, "" if none was built that it can.  compiled: what the accelerator's
    compiler made of it, delivered beside it; "" without one.
    arena_bytes, fullest: planned for the activations, and the layer around which most are alive; None if a shape is
    open.  accelerator: its kind, "none" without one.  on_accelerator, operations: how many run there, of how many.
    on_cpu: those that an accelerator leaves to the processor.
    compilation: what the Edge TPU's own compiler said, where it is at hand.  compile_command: where it is not.
    other_files: file -> why the target does not run it.
    """

    name: str
    summary: str
    file: str
    compiled: str
    faults: tuple[Fault, ...]
    arena_bytes: int | None
    fullest: str
    accelerator: str
    on_accelerator: int
    operations: int
    on_cpu: tuple[Placement, ...]
    latency: Estimate | None
    npu: NpuEstimate | None
    other_files: Mapping[str, str]
    compilation: Mapping[str, Any] | None = None
    compile_command: str = ""

    def to_json(self) -> dict[str, Any]:
        """The part of `emb build --json` that says whether the build fits its target."""
        return {
            "name": self.name,
            "file": self.file,
            "compiled": self.compiled or None,
            "fits": not self.faults,
            "faults": [asdict(fault) for fault in self.faults],
            "arena_bytes": self.arena_bytes,
            "fullest_operation": self.fullest,
            "accelerator": self.accelerator,
            "operations_on_accelerator": self.on_accelerator,
            "operations": self.operations,
            "on_cpu": [asdict(placement) for placement in self.on_cpu],
            "latency_us": self.latency and asdict(self.latency),
            "npu": self.npu and asdict(self.npu),
            "compilation": self.compilation,
            "compile_command": self.compile_command or None,
            "other_files": dict(self.other_files),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a build says.

    cached: nothing was done anew.  seconds: stage -> wall time of its work, whenever it was done.
    reference_accuracy: of the Keras model (or of the user's own float model) over the test split.
    notes: what the user of a model of one's own, or of data with images left out, should know.
    formats: one for each scheme that was measured in more than one format.
    target: whether it fits the target that it was built for, None if none was named.
    pruning: what pruning did, None without it.
    repairs: of the int8 files, if a greatest drop was named.
    """

    recipe: str
    data: DataSummary
    directory: Path
    cached: bool
    seconds: dict[str, float]
    rows: tuple[Row, ...]
    errors: tuple[str, ...]
    reference_accuracy: float
    machine: str
    notes: tuple[str, ...] = ()
    formats: tuple[FormatAgreement, ...] = ()
    target: TargetReport | None = None
    pruning: Pruning | None = None
    repairs: tuple[Repair, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of `emb build --json`; "target", "pruning" and "repairs" are there if they were asked for."""
        return {
            "recipe": self.recipe,
            "data": {
                "name": self.data.name,
                "train_images": self.data.train_images,
                "test_images": self.data.test_images,
                "digest": self.data.digest,
            },
            "directory": str(self.directory),
            "cached": self.cached,
            "seconds": self.seconds,
            "rows": [row.to_json() for row in self.rows],
            "formats": [{"scheme": formats.scheme, "agreement": formats.share} for formats in self.formats],
            "errors": list(self.errors),
            "notes": list(self.notes),
            "machine": self.machine,
            **({"target": self.target.to_json()} if self.target else {}),
            **({"pruning": self.pruning.to_json()} if self.pruning else {}),
            **({"repairs": [repair.to_json() for repair in self.repairs]} if self.repairs else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What `emb bench` says. model: the file or build, or several.  images: in words, what it was measured on.

    protocol: how the times were taken, in words.  notes: what was not measured and why, and what may have disturbed.
    load_before, load_after: runnable tasks over the last minute, of everybody; None where the system does not say.
    """

    model: str
    images: str
    rows: tuple[Row, ...]
    errors: tuple[str, ...]
    machine: str
    protocol: str = ""
    notes: tuple[str, ...] = ()
    load_before: float | None = None
    load_after: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of `emb bench --json`; its rows are those of `emb build --json`."""
        return {
            "model": self.model,
            "images": self.images,
            "rows": [row.to_json() for row in self.rows],
            "errors": list(self.errors),
            "machine": self.machine,
            "load_average": {"before": self.load_before, "after": self.load_after},
            "protocol": self.protocol,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardReport:
    """What was measured on one board.

    device: as the user calls it.  machine: what it is.  model: the file.  images: in words, what accuracy is over.
    rows, runs: one of each for a number of threads; accuracy is the same in all rows.
    identical: how many of `compared` outputs are the bits that the same runtime gives on this machine; None if it is
    not here, or gives other bits by its nature.
    notes: what may have disturbed the measurement.
    """

    device: str
    machine: str
    model: str
    images: str
    rows: tuple[Row, ...]
    runs: tuple[BoardRun, ...]
    identical: int | None
    compared: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `emb bench --host … --json`, raw samples included."""
        return {
            "device": self.device,
            "machine": self.machine,
            "model": self.model,
            "images": self.images,
            "rows": [row.to_json() for row in self.rows],
            "runs": [run.to_json() for run in self.runs],
            "identical_outputs": None if self.identical is None else {"equal": self.identical, "of": self.compared},
            "notes": list(self.notes),
        }
