"""What was measured on a board reads the same until somebody means to change it."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from emb.report.board import markdown, render
from emb.spec.board import BoardMachine, BoardMoment, BoardRun, BoardState, Throttling
from emb.spec.latency import LatencySummary
from emb.spec.report import BoardReport, Row

GOLDEN = Path(__file__).parent.parent / "golden" / "report"
FLAGS = [field.name for field in fields(Throttling) if field.name != "raw"]
NEVER = Throttling(raw=0, **dict.fromkeys(FLAGS, False))
BEFORE = BoardState(
    governor="ondemand",
    frequency_hz=(600_000_000, 1_500_000_000),
    highest_frequency_hz=(1_500_000_000, 1_500_000_000),
    temperature_c={"cpu-thermal": 48.2},
    throttled=NEVER,
    load_average=0.05,
)
UNKNOWN = BoardState(
    governor=None, frequency_hz=None, highest_frequency_hz=None, temperature_c=None, throttled=None, load_average=None
)
RUN = BoardRun(
    bundle="ab" * 32,
    name="lenet-int8",
    target="rpi4",
    model="lenet-int8.tflite",
    sha256="cd" * 32,
    runtime="litert",
    version="2.3.0",
    mode="default",
    threads=1,
    threads_alive=2,
    seconds=30.0,
    warm_up_runs=20_000,
    kept_one_run_in=3,
    peak_memory_bytes=58_000_000,
    machine=BoardMachine(
        board="Raspberry Pi 4 Model B Rev 1.4",
        processor=None,
        machine="aarch64",
        system="Linux",
        kernel="6.1.0",
        cores=4,
        memory_bytes=1_000_000_000,
        python="3.11.2",
        glibc="2.36",
        numpy="1.26.4",
        runtimes={"litert": "2.3.0"},
    ),
    before=BEFORE,
    after=replace(BEFORE, temperature_c={"cpu-thermal": 61.0}, load_average=1.0),
    course=(
        BoardMoment(at_ns=9, frequency_hz=(1_500_000_000, 1_500_000_000), temperature_c={"cpu-thermal": 49.5}),
        BoardMoment(at_ns=1_000_000_100, frequency_hz=None, temperature_c=None),
    ),
    start_ns=tuple(range(9, 8_000_000_000, 250_000_000)),
    latency_ns=tuple(60_000 + 500 * number for number in range(32)),
)


def row(run: BoardRun) -> Row:
    return Row(
        file=run.model,
        format="tflite",
        scheme="int8",
        runtime=run.runtime,
        mode=run.mode,
        bytes=71_600,
        gzip_bytes=63_687,
        parameters=61_706,
        macs=416_520,
        sha256=run.sha256,
        source="measured on pi@kitchen",
        accuracy=0.9943,
        accuracy_low=0.9926,
        accuracy_high=0.9956,
        latency=LatencySummary(median_us=run.median_us, p90_us=run.p90_us, runs=32, threads=run.threads),
        peak_memory_bytes=run.peak_memory_bytes,
    )


ALL = replace(RUN, threads=4, peak_memory_bytes=None, before=UNKNOWN, after=UNKNOWN, course=())
REPORT = BoardReport(
    device="pi@kitchen",
    machine=RUN.machine.title,
    model="lenet-int8.tflite",
    images="10,000 test images of mnist",
    rows=(row(RUN), row(ALL)),
    runs=(RUN, ALL),
    identical=10_000,
    compared=10_000,
    notes=("one thread: the clock's governor is ondemand, so the clock may have changed",),
)


def rendered(renderable: RenderableType, *, width: int) -> str:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


@pytest.mark.golden
@pytest.mark.parametrize("name", ["board.txt", "board-80-columns.txt", "board.md"])
def test_golden(name: str) -> None:
    widths = {"board.txt": 160, "board-80-columns.txt": 80}
    page = rendered(render(REPORT), width=widths[name]) if name in widths else markdown(REPORT)
    golden = GOLDEN / name
    if os.environ.get("EMB_REWRITE_GOLDEN"):
        golden.write_text(page, encoding="utf-8")
    assert page == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [70, 80, 100, 120, 200])
def test_no_figure_is_cut_off_however_narrow_the_terminal(width: int) -> None:
    shown = rendered(render(REPORT), width=width)
    assert "…" not in shown
    for figure in ("99.43", "99.26–99.56", "58", "litert"):
        assert figure in shown


def test_what_was_not_compared_is_not_claimed() -> None:
    assert "the bits" not in markdown(replace(REPORT, identical=None))
    assert markdown(REPORT).count("unknown") == 10
