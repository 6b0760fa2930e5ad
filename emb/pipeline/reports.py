"""Reads the reports of builds that are there, and puts them beside each other. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emb.errors import ModelError, SpecError
from emb.pipeline.deliverable import located
from emb.pipeline.json_files import read_json
from emb.registry import nearest
from emb.report.frontier import frontier
from emb.spec.overview import BuildSummary, Change, Entry, Limits, Regressions, Section
from emb.spec.report import DataSummary, Row

REPORT = "report.json"
_BUILDS = Path("builds")


def overview(builds: Sequence[Path], *, runtime: str | None = None) -> tuple[Section, ...]:
    """Every file of the builds on every runtime in its default mode, those of the same test images together.

    builds: directories, or names in builds/; all of builds/ by default.  runtime: that alone.
    Raises ModelError for what is no build and where there is none, SpecError for a runtime that nothing ran on.
    """
    summaries = [read_build(build) for build in builds or _all_builds()]
    known = sorted({row.runtime for summary in summaries for row in summary.rows})
    if runtime is not None and runtime not in known:
        raise SpecError(f"no build was measured on {runtime!r}", fix=nearest(runtime, known))
    sections: dict[str, list[BuildSummary]] = {}
    for summary in summaries:
        sections.setdefault(summary.data.digest, []).append(summary)
    return tuple(Section(data=found[0].data, entries=_entries(found, runtime=runtime)) for found in sections.values())


def _entries(builds: Sequence[BuildSummary], *, runtime: str | None) -> tuple[Entry, ...]:
    listed = [
        (build, row)
        for build in builds
        for row in build.rows
        if row.mode == "default" and runtime in (None, row.runtime)
    ]
    gains = [row.accuracy for _, row in listed]
    smallest = frontier([row.bytes for _, row in listed], gains)
    fastest = [False] * len(listed)
    for machine in {build.machine for build, _ in listed}:
        # Times of two machines are not compared.
        times = [row.latency.median_us if row.latency and build.machine == machine else None for build, row in listed]
        fastest = [one or other for one, other in zip(fastest, frontier(times, gains), strict=True)]
    return tuple(
        Entry(build=build.directory, machine=build.machine, row=row, smallest=small, fastest=fast)
        for (build, row), small, fast in zip(listed, smallest, fastest, strict=True)
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
    return f"{data.test_images:,} test images of {data.name} (sha256 {data.digest[:12]}…)"


def _all_builds() -> list[Path]:
    found = sorted(path.parent for path in _BUILDS.glob(f"*/{REPORT}"))
    if not found:
        raise ModelError(
            "there is no build to report on",
            why=f"no directory in {_BUILDS.resolve()} holds a {REPORT}",
            fix="build one: emb build lenet; or name the directories",
        )
    return found


def read_build(build: Path) -> BuildSummary:
    """What a build's report says. Raises ModelError if it is none, or is damaged."""
    directory = located(build)
    path = directory / REPORT
    if not path.is_file():
        names = sorted(found.parent.name for found in _BUILDS.glob(f"*/{REPORT}"))
        raise ModelError(
            f"{build} is no build",
            why=f"it holds no {REPORT}" if directory.is_dir() else "there is no such directory, here or in builds/",
            fix=nearest(str(build), names) if names else "build one: emb build lenet",
        )
    try:
        document = read_json(path)
        return BuildSummary(
            directory=directory.name if directory.parent == _BUILDS else str(directory),
            recipe=document["recipe"],
            data=DataSummary(**document["data"]),
            machine=document.get("machine", ""),
            rows=tuple(Row.from_json(row) for row in document["rows"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged", why=str(error), fix="build the model again") from error
