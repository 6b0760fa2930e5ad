"""Reads the reports of builds that are there, and puts them beside each other. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.errors import ModelError, SpecError
from emb.pipeline.deliverable import located
from emb.pipeline.json_files import read_json
from emb.registry import nearest
from emb.report.frontier import frontier
from emb.spec.comparison import LEAST_DIFFERENCE
from emb.spec.fit import Estimate
from emb.spec.overview import BuildSummary, Change, Entry, Limits, Regressions, Section
from emb.spec.report import DataSummary, Row

REPORT = "report.json"
BOARDS = "boards"
_BUILDS = Path("builds")


def overview(builds: Sequence[Path], *, runtime: str | None = None) -> tuple[Section, ...]:
    """Every file of the builds on every runtime in its default mode, those of the same test images together.

    builds: directories, or names in builds/; all of builds/ by default.  runtime: that alone.
    Raises ModelError for what is no build and where there is none, SpecError for a runtime that nothing ran on.
    """
    summaries = [read_build(build) for build in builds or all_builds()]
    known = sorted({row.runtime for summary in summaries for row in summary.rows})
    if runtime is not None and runtime not in known:
        raise SpecError(f"no build was measured on {runtime!r}", fix=nearest(runtime, known))
    sections: dict[str, list[BuildSummary]] = {}
    for summary in summaries:
        sections.setdefault(summary.data.digest, []).append(summary)
    return tuple(Section(data=found[0].data, entries=_entries(found, runtime=runtime)) for found in sections.values())


def _entries(builds: Sequence[BuildSummary], *, runtime: str | None) -> tuple[Entry, ...]:
    listed = [
        (build, device, machine, row)
        for build in builds
        for device, machine, row in (*(("", build.machine, row) for row in build.rows), *build.board_rows)
        if (row.mode == "default" or device) and runtime in (None, row.runtime)
    ]
    rows = [row for *_, row in listed]
    machines = [machine for _, _, machine, _ in listed]
    gains = [row.accuracy for row in rows]
    smallest = frontier([row.bytes for row in rows], gains)
    fastest = [False] * len(listed)
    for machine in set(machines):
        # Times of two machines are not compared.
        times = [
            row.latency.median_us if row.latency and own == machine else None
            for own, row in zip(machines, rows, strict=True)
        ]
        fastest = [
            one or other
            for one, other in zip(fastest, frontier(times, gains, equal_within=LEAST_DIFFERENCE), strict=True)
        ]
    return tuple(
        Entry(
            build=build.directory,
            machine=machine,
            device=device,
            target=build.target,
            estimate=build.estimates.get(row.file),
            row=row,
            smallest=small,
            fastest=fast,
        )
        for (build, device, machine, row), small, fast in zip(listed, smallest, fastest, strict=True)
    )


def regressions(old: Path, new: Path, *, limits: Limits) -> Regressions:
    """A build against an older one. Raises ModelError for what is no build, and for builds of different test images."""
    before, after = read_build(old), read_build(new)
    if before.data.digest != after.data.digest:
        raise ModelError(
            f"{new} and {old} were judged by different images",
            why=f"{_described(after.data)} and {_described(before.data)}",
            fix="build both from the same data set",
        )
    rows = [{(row.format, row.scheme, row.runtime, row.mode): row for row in build.rows} for build in (before, after)]
    changes = [Change(old=rows[0].get(key), new=rows[1].get(key)) for key in dict.fromkeys((*rows[0], *rows[1]))]
    return Regressions(old=before, new=after, changes=tuple(changes), limits=limits)


def _described(data: DataSummary) -> str:
    return f"{data.judges} (sha256 {data.digest[:12]}…)"


def all_builds() -> list[Path]:
    """The directories in builds/ that hold a build. Raises ModelError if there is none."""
    found = sorted(path.parent for path in _BUILDS.glob(f"*/{REPORT}"))
    if not found:
        raise ModelError(
            "there is no build to report on",
            why=f"no directory in {_BUILDS.resolve()} holds a {REPORT}",
            fix="build one: emb build lenet; or name the directories",
        )
    return found


def directory_of(build: Path) -> Path:
    """Where a build lies: a directory, or a name in builds/. Raises ModelError if it is none."""
    directory = located(build)
    if not (directory / REPORT).is_file():
        names = sorted(found.parent.name for found in _BUILDS.glob(f"*/{REPORT}"))
        raise ModelError(
            f"{build} is no build",
            why=f"it holds no {REPORT}" if directory.is_dir() else "there is no such directory, here or in builds/",
            fix=nearest(str(build), names) if names else "build one: emb build lenet",
        )
    return directory


def _board_rows(folder: Path, *, images: str) -> Iterator[tuple[str, str, Row]]:
    """What `emb bench --host` kept. images: what the build's own accuracy is over."""
    for path in sorted(folder.glob("*.json")):
        document = read_json(path)
        for row in map(Row.from_json, document["rows"]):
            threads = row.latency.threads if row.latency else 1
            machine = document["machine"] + (f", {threads} threads" if threads > 1 else "")
            if document["images"] != images:
                row = replace(row, accuracy=None, accuracy_low=None, accuracy_high=None)
            yield document["device"], machine, row


def read_build(build: Path) -> BuildSummary:
    """What a build's report says. Raises ModelError if it is none, or is damaged."""
    directory = directory_of(build)
    path = directory / REPORT
    try:
        document = read_json(path)
        data = DataSummary(**document["data"])
        return BuildSummary(
            directory=directory.name if directory.parent == _BUILDS else str(directory),
            recipe=document["recipe"],
            data=data,
            machine=document.get("machine", ""),
            rows=tuple(Row.from_json(row) for row in document["rows"]),
            board_rows=tuple(_board_rows(directory / BOARDS, images=data.judges)),
            target=(document.get("target") or {}).get("name", ""),
            estimates=_estimates(document.get("target") or {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged", why=str(error), fix="build the model again") from error


def _estimates(target: Mapping[str, Any]) -> dict[str, Estimate]:
    """The latency of the one file that the target runs. target: that part of a report, empty without one."""
    if npu := target.get("npu"):
        return {
            target["file"]: Estimate(lowest_us=npu["latency_us"], highest_us=npu["latency_us"], source=npu["compiler"])
        }
    return {target["file"]: Estimate(**target["latency_us"])} if target.get("latency_us") else {}
