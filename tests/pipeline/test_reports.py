"""`emb report`: builds beside each other, and a build beside an older one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from emb.errors import ModelError
from emb.pipeline.reports import overview, read_build, regressions
from emb.report.overview import (
    CHANGE_HEADERS,
    HEADERS,
    change_cells,
    entry_cells,
    regression_notes,
    regressions_markdown,
    section_notes,
    sections_csv,
    sections_markdown,
)
from emb.spec.latency import LatencySummary
from emb.spec.overview import Limits
from emb.spec.report import Row

MACHINE = "A board (4 cores, Linux aarch64)"


def row(scheme: str = "int8", **changes: Any) -> dict[str, Any]:
    latency = LatencySummary(median_us=changes.pop("median_us", 20.0), p90_us=25.0, runs=100, threads=1)
    values: dict[str, Any] = {
        "file": f"net-{scheme}.tflite",
        "format": "tflite",
        "scheme": scheme,
        "runtime": "litert",
        "mode": "default",
        "bytes": 1000,
        "gzip_bytes": 900,
        "parameters": 800,
        "macs": 5000,
        "sha256": "00",
        "source": "measured",
        "accuracy": 0.95,
        "accuracy_low": 0.94,
        "accuracy_high": 0.96,
        "latency": latency,
    }
    return Row(**{**values, **changes}).to_json()


def write(folder: Path, name: str, rows: list[dict[str, Any]], *, digest: str = "d1", **changes: Any) -> Path:
    document = {
        "recipe": "net",
        "data": {"name": "digits", "train_images": 100, "test_images": 200, "digest": digest},
        "rows": rows,
        "machine": MACHINE,
        **changes,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "report.json").write_text(json.dumps(document))
    return folder / name


def test_a_row_is_read_as_it_was_written() -> None:
    assert Row.from_json(row()).to_json() == row()
    absent = row(latency=None, accuracy=None, source="not measured: it is not installed")
    assert Row.from_json(absent).latency is None
    assert Row.from_json(absent).to_json() == absent


def test_builds_of_the_same_images_stand_together(tmp_path: Path) -> None:
    small = write(tmp_path, "small", [row(bytes=500, accuracy=0.9, median_us=30.0), row(mode="reference")])
    large = write(tmp_path, "large", [row(bytes=1000, accuracy=0.95), row("float32", bytes=4000, accuracy=0.95)])
    other = write(tmp_path, "other", [row(bytes=1, accuracy=1.0)], digest="d2")
    first, second = overview([small, large, other])
    assert [(Path(one.build).name, one.row.scheme, one.smallest, one.fastest) for one in first.entries] == [
        ("small", "int8", True, False),
        ("large", "int8", True, True),
        ("large", "float32", False, True),
    ]
    assert [Path(one.build).name for one in second.entries] == ["other"]
    assert section_notes(first)[1:] == [f"times measured on {MACHINE}"]


def test_times_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    slow = write(tmp_path, "slow", [row(median_us=900.0)], machine="Another one")
    fast = write(tmp_path, "fast", [row(median_us=1.0)])
    (section,) = overview([slow, fast])
    assert [entry.fastest for entry in section.entries] == [True, True]
    assert section_notes(section)[-1] == "times of different machines are not compared"


def test_a_report_without_a_machine_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "old", [row()])
    document = json.loads((path / "report.json").read_text())
    del document["machine"]
    (path / "report.json").write_text(json.dumps(document))
    (section,) = overview([path])
    assert section_notes(section)[1:] == ["times of reports that name no machine"]


def test_one_runtime_alone(tmp_path: Path) -> None:
    build = write(tmp_path, "build", [row(), row(runtime="onnxruntime", format="onnx")])
    (section,) = overview([build], runtime="onnxruntime")
    assert [entry.row.format for entry in section.entries] == ["onnx"]


def test_an_estimate_is_of_the_one_file_that_the_target_runs(tmp_path: Path) -> None:
    latency = {"lowest_us": 80.0, "highest_us": 1500.0, "source": "MACs at a rate"}
    aimed = write(
        tmp_path,
        "aimed",
        [row(), row("float32")],
        target={"name": "rpi4", "file": "net-int8.tflite", "latency_us": latency},
    )
    unfit = write(tmp_path, "unfit", [row()], target={"name": "mcu", "file": "", "latency_us": None, "npu": None})
    (section,) = overview([aimed, unfit, write(tmp_path, "plain", [row()])])
    at = [HEADERS.index(name) for name in ("target", "median µs", "estimated µs")]
    assert [tuple(entry_cells(entry)[place] for place in at) for entry in section.entries] == [
        ("rpi4", "20", "80.0–1,500"),
        ("rpi4", "20", "–"),
        ("mcu", "20", "–"),
        ("–", "20", "–"),
    ]
    assert section_notes(section)[-1] == "estimated, not measured: the latency on rpi4; source: MACs at a rate"
    lines = list(csv.DictReader(io.StringIO(sections_csv([section]))))
    assert [(line["target"], line["estimated_highest_us"], line["estimated_by"]) for line in lines[:2]] == [
        ("rpi4", "1500.0", "MACs at a rate"),
        ("rpi4", "", ""),
    ]
    assert "estimated" in sections_markdown([section])


def test_a_table_without_targets_has_no_column_for_them(tmp_path: Path) -> None:
    text = sections_markdown(overview([write(tmp_path, "plain", [row()])]))
    assert "estimated µs" not in text
    assert "| target" not in text


def test_a_page_and_a_spreadsheet_hold_what_the_table_does(tmp_path: Path) -> None:
    sections = overview([write(tmp_path, "build", [row(), row("float32", latency=None, bytes=4000)])])
    lines = sections_markdown(sections).splitlines()
    assert lines[0] == "## 200 test images of digits"
    assert "| ".join(entry_cells(sections[0].entries[0])[1:4]).replace(" ", "") in lines[4].replace(" ", "")
    found = list(csv.DictReader(io.StringIO(sections_csv(sections))))
    assert [(line["scheme"], line["bytes"], line["accuracy"], line["median_us"]) for line in found] == [
        ("int8", "1000", "0.95", "20.0"),
        ("float32", "4000", "0.95", ""),
    ]


@pytest.mark.parametrize(
    ("change", "limits", "faults"),
    [
        ({"accuracy": 0.945}, Limits(accuracy_drop=0.5), []),
        ({"accuracy": 0.944}, Limits(accuracy_drop=0.5), ["int8 tflite on litert: 0.60 points less, 0.5 are allowed"]),
        ({"accuracy": 0.9}, Limits(size_growth=10), []),
        ({"accuracy": 0.99}, Limits(accuracy_drop=0), []),
        ({"bytes": 1100}, Limits(size_growth=10), []),
        ({"bytes": 1101}, Limits(size_growth=10), ["int8 tflite on litert: 10.10 % larger, 10 % is allowed"]),
        ({"bytes": 500}, Limits(size_growth=0), []),
        (
            {"accuracy": None, "source": "not measured: gone"},
            Limits(accuracy_drop=1),
            ["int8 tflite on litert: its accuracy is not measured any more (not measured: gone)"],
        ),
        ({"scheme": "float16"}, Limits(accuracy_drop=1), ["int8 tflite on litert: it is not there any more"]),
        ({"scheme": "float16"}, Limits(), []),
    ],
)
def test_limits(tmp_path: Path, change: dict[str, Any], limits: Limits, faults: list[str]) -> None:
    old, new = write(tmp_path, "old", [row()]), write(tmp_path, "new", [row(**change)])
    found = regressions(old, new, limits=limits)
    assert list(found.faults) == faults
    assert found.to_json()["faults"] == faults
    assert regressions_markdown(found).count("**limit passed:**") == len(faults)


def test_what_has_changed_is_shown(tmp_path: Path) -> None:
    old = write(tmp_path, "old", [row(), row("float32")])
    new = write(tmp_path, "new", [row(accuracy=0.94, bytes=1250, median_us=10.0)], machine="Another one")
    found = regressions(old, new, limits=Limits())
    shown = [dict(zip(CHANGE_HEADERS, change_cells(change), strict=True)) for change in found.changes]
    assert (shown[0]["points"], shown[0]["growth %"]) == ("-1.00", "+25.00")
    assert (shown[0]["old µs"], shown[0]["new µs"]) == ("20", "10")
    assert (shown[1]["scheme"], shown[1]["new %"], shown[1]["points"]) == ("float32", "–", "–")
    assert "two machines" in regression_notes(found)[1]


def test_other_images_are_refused(tmp_path: Path) -> None:
    old, new = write(tmp_path, "old", [row()]), write(tmp_path, "new", [row()], digest="d2")
    with pytest.raises(ModelError, match="were judged by different images"):
        regressions(old, new, limits=Limits())


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": "net"}', '{"recipe": "n", "data": {}, "rows": [1]}'])
def test_a_damaged_report_is_told(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, "build", [row()])
    (path / "report.json").write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        read_build(path)


def test_the_command_line(emb: Any, tmp_path: Path) -> None:
    builds = emb.home / "builds"
    old = write(builds, "reported-old", [row()])
    write(builds, "reported-new", [row(accuracy=0.9)])
    assert "reported-old" in emb.run("report").stdout
    assert emb.run("report", "reported-old", "--format", "csv").stdout.count("\n") == 2
    assert len(emb.json("report", "reported-old", "reported-new")["sections"][0]["rows"]) == 2
    assert emb.run("report", "--compare", "reported-old", "reported-new").stdout.count("limit passed") == 0
    limited = ("report", "--compare", str(old), "reported-new", "--max-accuracy-drop", "1")
    assert "5.00 points less, 1 are allowed" in emb.run(*limited, expect=1).stdout
    assert json.loads(emb.run(*limited, "--json", expect=1).stdout)["faults"]
    for arguments, said in (
        (("reported-olt",), "reported-old"),
        (("reported-old", "--compare"), "--compare holds two builds against each other, not 1"),
        (("reported-old", "--max-size-growth", "5"), "--max-size-growth is for two builds"),
        (("reported-old", "--runtime", "litrt"), "no build was measured on 'litrt'"),
        (("--compare", "reported-old", "reported-new", "--format", "csv"), "--format csv does not go with --compare"),
    ):
        done = emb.run("report", *arguments, expect=2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_no_build_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no build to report on"):
        overview([])


def board(folder: Path, device: str, rows: list[dict[str, Any]], *, images: str = "200 test images of digits") -> None:
    """What `emb bench --host` keeps, as far as a report reads it."""
    folder.mkdir(exist_ok=True)
    document = {"device": device, "machine": "Pi 4 (4 cores)", "images": images, "rows": rows}
    (folder / f"{device}.json").write_text(json.dumps(document))


def test_what_boards_measured_stands_beside_it(tmp_path: Path) -> None:
    build = write(tmp_path, "net", [row(median_us=20.0)])
    fast = row(median_us=30.0, mode="reference", source="measured on pi4")
    fast["latency_us"]["threads"] = 4
    board(build / "boards", "pi4", [row(median_us=80.0, source="measured on pi4"), fast])
    board(build / "boards", "other", [row(median_us=5.0)], images="50 of 200 test images of digits")
    (section,) = overview([build])
    found = [(one.device, one.machine, one.row.accuracy, one.smallest, one.fastest) for one in section.entries]
    assert found == [
        ("", MACHINE, 0.95, True, True),
        ("other", "Pi 4 (4 cores)", None, False, False),
        ("pi4", "Pi 4 (4 cores)", 0.95, True, True),
        ("pi4", "Pi 4 (4 cores), 4 threads", 0.95, True, True),
    ]
    assert [entry_cells(one)[3] for one in section.entries][2:] == ["litert on pi4", "litert (reference) on pi4"]
    assert [line["device"] for line in csv.DictReader(io.StringIO(sections_csv([section])))] == [
        "",
        "other",
        "pi4",
        "pi4",
    ]


def test_a_damaged_board_report_is_named(tmp_path: Path) -> None:
    build = write(tmp_path, "net", [row()])
    board(build / "boards", "pi4", [])
    (build / "boards/pi4.json").write_text("{}")
    with pytest.raises(ModelError, match="is damaged"):
        read_build(build)
