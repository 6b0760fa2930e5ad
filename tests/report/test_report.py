"""The report reads the same until somebody means to change it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from emb.report import bench, markdown, text
from emb.spec.fit import Estimate, Fault
from emb.spec.latency import LatencySummary, Throughput
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.pruned import PrunedLayer, Pruning, Unpruned
from emb.spec.report import BenchReport, DataSummary, FormatAgreement, Report, Row, TargetReport

GOLDEN = Path(__file__).parent.parent / "golden" / "report"


def row(**fields) -> Row:
    usual = {
        "file": "lenet-int8.tflite",
        "format": "tflite",
        "scheme": "int8",
        "runtime": "litert",
        "mode": "default",
        "bytes": 71_600,
        "gzip_bytes": 63_687,
        "parameters": 61_706,
        "macs": 416_520,
        "sha256": "ab" * 32,
        "source": "measured",
        "accuracy": 0.9943,
        "accuracy_low": 0.9926,
        "accuracy_high": 0.9956,
        "agreement": 0.9998,
        "latency": LatencySummary(median_us=17.25, p90_us=1234.5, runs=900, threads=1),
        "peak_memory_bytes": 53_200_000,
    }
    return Row(**{**usual, **fields})


ABSENT = row(
    runtime="tflite-runtime",
    source="not measured: tflite-runtime has wheels for Python 3.11 and older only",
    accuracy=None,
    accuracy_low=None,
    accuracy_high=None,
    agreement=None,
    latency=None,
    peak_memory_bytes=None,
)
REPORT = Report(
    recipe="lenet",
    data=DataSummary(name="mnist", train_images=54_000, test_images=10_000, digest="cd" * 32),
    directory=Path("builds/lenet-int8"),
    cached=False,
    seconds={"data": 0.25, "train": 181.5},
    rows=(row(), row(mode="reference", latency=LatencySummary(median_us=478, p90_us=542, runs=20, threads=1)), ABSENT),
    errors=("lenet-int8.onnx on onnxruntime (default): onnxruntime was killed by SIGKILL",),
    reference_accuracy=0.9945,
    machine="a processor (2 cores, Linux x86_64)",
    notes=("the model returns [logits]",),
    formats=(FormatAgreement(scheme="int8", share=0.99971),),
)

AIMED = replace(
    REPORT,
    target=TargetReport(
        name="corstone-300",
        summary="a board with an Ethos-U55",
        file="lenet-int8.tflite",
        compiled="lenet-int8_vela.tflite",
        faults=(Fault(what="it needs 5 bytes of SRAM; the board has 4", why="so says\n  Vela", fix="take less"),),
        arena_bytes=5_888,
        fullest="pool1",
        accelerator="ethos-u",
        on_accelerator=7,
        operations=8,
        on_cpu=(Placement(operation="a/b", kind="FLOOR", device="cpu", status="Unsupported opType", detail="really"),),
        latency=Estimate(lowest_us=1200, highest_us=3400, source="MACs at the rates of others"),
        npu=NpuEstimate(
            compiler="Vela 5.2.0",
            cycles=95_125,
            clock_hz=500_000_000,
            latency_us=190.25,
            sram_bytes=10_848,
            dram_bytes=0,
            flash_bytes=72_064,
            file_bytes=74_288,
        ),
        other_files={"lenet-int8.onnx": "the Ethos-U takes .tflite of integers alone"},
    ),
)

UNPRUNED = Unpruned(
    scheme="int8", reference_accuracy=0.9945, accuracy=0.9943, bytes=143_200, gzip_bytes=120_000, median_us=34.5
)
THINNER = replace(
    REPORT,
    pruning=Pruning(
        method="channels",
        goal="bytes=72000",
        criterion="taylor",
        scope="global",
        steps=2,
        epochs=20,
        distilled=True,
        reached="71,600 bytes as int8 .tflite, after 7 conversions",
        macs_before=833_040,
        macs_after=416_520,
        parameters_before=123_412,
        parameters_after=61_706,
        unpruned_accuracy=0.995,
        pruned_accuracy=0.713,
        tuned_accuracy=0.9942,
        layers=(PrunedLayer(name="conv1", before=12, after=6, layers=("conv1", "conv2")),),
        left_whole={f"block{number}": "its shape is fixed" for number in range(6)},
        unpruned=UNPRUNED,
    ),
)
ZEROS = replace(
    REPORT,
    pruning=replace(
        THINNER.pruning,
        method="magnitude",
        goal="0.9",
        criterion="",
        steps=1,
        epochs=0,
        reached="",
        layers=(PrunedLayer(name="dense", before=1_000, after=100, layers=("dense",)),),
        left_whole={},
        unpruned=replace(UNPRUNED, bytes=71_600),
    ),
)


BENCHED = BenchReport(
    model="lenet-int8.tflite",
    images="10,000 test images of mnist",
    rows=(
        row(
            agreement=None,
            latency=LatencySummary(
                median_us=9.2346,
                low_us=9.204,
                high_us=9.267,
                p90_us=9.41,
                p99_us=12.6,
                runs=90_000,
                threads=1,
                round_medians_us=(9.2, 9.3),
            ),
            cold_start_us=1_174.5,
            throughput=Throughput(images_per_s=81_234.5, processes=2, threads=1, window_s=1.0),
            energy_uj=131.25,
        ),
        row(
            mode="reference",
            agreement=None,
            latency=LatencySummary(
                median_us=333.4,
                low_us=331,
                high_us=393,
                p90_us=1_234.5,
                runs=80,
                threads=1,
                noise=("the interval is 19 % of the median wide", "one run in ten took 3.7 times the median or longer"),
            ),
        ),
        ABSENT,
    ),
    errors=(),
    machine="a processor",
    protocol="10 rounds with a fresh process for each row in turn",
    notes=("the machine was busy before: load 1.70 on 2 cores",),
    load_before=1.7,
    load_after=0.95,
)


def rendered(renderable, *, width: int = 160) -> str:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "render"),
    [
        ("build.txt", lambda: rendered(text.render(REPORT))),
        ("build-80-columns.txt", lambda: rendered(text.render(REPORT), width=80)),
        ("build.md", lambda: markdown.render(REPORT)),
        ("build-for-a-target.txt", lambda: rendered(text.render(AIMED))),
        ("build-for-a-target.md", lambda: markdown.render(AIMED)),
        ("pruned-channels.txt", lambda: rendered(text.render(THINNER))),
        ("pruned-channels.md", lambda: markdown.render(THINNER)),
        ("pruned-magnitude.txt", lambda: rendered(text.render(ZEROS))),
        ("bench.txt", lambda: rendered(bench.render(BENCHED))),
        ("bench-80-columns.txt", lambda: rendered(bench.render(BENCHED), width=80)),
    ],
)
def test_golden(name, render):
    golden = GOLDEN / name
    if os.environ.get("EMB_REWRITE_GOLDEN"):
        golden.write_text(render(), encoding="utf-8")
    assert render() == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_figure_is_cut_off_however_narrow_the_terminal(width):
    shown = rendered(text.render(REPORT), width=width)
    assert "…" not in shown
    for figure in ("71,600", "63,687", "99.43", "99.26–99.56", "99.98", "-0.02", "1,234", "478"):
        assert figure in shown.replace("\n", "")


def test_pruning_goes_through_json():
    assert Pruning.from_json(json.loads(json.dumps(THINNER.pruning.to_json()))) == THINNER.pruning
    assert "pruning" not in REPORT.to_json()


def test_a_row_that_was_not_measured_has_nulls_and_says_why():
    document = ABSENT.to_json()
    assert document["accuracy"] is None
    assert document["latency_us"] is None
    assert document["source"].startswith("not measured: ")
