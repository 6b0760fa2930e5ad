"""Gathers what an HTML report shows from the directories of builds. Measures nothing, and writes only the page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emb.errors import ModelError, StoreError
from emb.pipeline.json_files import read_json, replace_text
from emb.pipeline.judged import CLASSES
from emb.pipeline.quantization_error import KEPT
from emb.pipeline.reports import REPORT, all_builds, directory_of, overview, read_build
from emb.pipeline.stage import code_digest, versions
from emb.report.page import GENERATOR, render
from emb.spec.page import BuildDetails, Confusion, LayerCost, LayerError, Mistake, Page
from emb.store import MANIFEST, Step, Store, explained

# What is left of 2 MB beside the scripts and the figures.
PICTURE_BYTES = 500_000
_LONGEST_SIDE_PIXELS = 96
_SCRIPT = "charts.js"


def write_page(builds: Sequence[Path], path: Path, *, runtime: str | None = None) -> None:
    """One HTML file that needs nothing beside itself. builds, runtime: as for `overview`.

    Raises StoreError if `path` holds something else than such a page, or cannot be written.
    """
    _require_replaceable(path)
    text = render(gather(builds, runtime=runtime), script=charts_script())
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)


def gather(builds: Sequence[Path], *, runtime: str | None = None) -> Page:
    """The sections of `overview`, and the details of every build in them."""
    listed = list(builds) or all_builds()
    sections = overview(listed, runtime=runtime)
    details, room = [], PICTURE_BYTES
    for build in listed:
        found = _details(build)
        used = sum(len(mistake.png) for mistake in found.mistakes)
        if used > room:
            found = replace(found, mistakes=(), left_out=len(found.mistakes))
        else:
            room -= used
        details.append(found)
    return Page(sections=sections, builds=tuple(details))


def charts_script() -> str:
    """The chart libraries as one script, as vl-convert carries them; kept in the cache, as it takes seconds."""

    def bundle(folder: Path) -> None:
        from altair import SCHEMA_VERSION
        from vl_convert import javascript_bundle

        version = ".".join(SCHEMA_VERSION.removeprefix("v").split(".")[:2])
        (folder / _SCRIPT).write_text(javascript_bundle(vl_version=version), encoding="utf-8")

    step = Step(
        name="charts script",
        tools=versions(("altair", "vl-convert-python")),
        code=code_digest(("pipeline/page.py",)),
    )
    return Store().run(step, bundle).path(_SCRIPT).read_text(encoding="utf-8")


def _require_replaceable(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a directory", fix="name a file with --output")
    if not path.exists():
        return
    with explained("read", path):
        text = path.read_text(encoding="utf-8", errors="replace")
    if f'content="{GENERATOR}' not in text[:1000]:
        raise StoreError(
            f"{path} holds something else than a report of emb",
            why="emb would replace the file",
            fix="name another file with --output",
        )


def _details(build: Path) -> BuildDetails:
    """Raises ModelError if the build is damaged."""
    summary, directory = read_build(build), directory_of(build)
    try:
        report, manifest = read_json(directory / REPORT), read_json(directory / MANIFEST)
        contract = read_json(directory / "contract.json")
        classes = read_json(directory / CLASSES) if (directory / CLASSES).is_file() else {}
        wrong = classes.get("mistakes") or {"file": "", "runtime": "", "pictures": []}
        layers_of, layers = _layers(directory, contract["models"])
        return BuildDetails(
            name=summary.directory,
            recipe=summary.recipe,
            machine=summary.machine,
            notes=tuple(report["notes"]),
            errors=tuple(report["errors"]),
            seconds=report["seconds"],
            epochs=_epochs(directory),
            labels=tuple(contract["labels"]),
            confusions=tuple(
                Confusion(
                    file=row["file"],
                    runtime=row["runtime"],
                    mode=row["mode"],
                    counts=tuple((label, answer, images) for label, answer, images in row["confusion"]),
                )
                for row in classes.get("rows", [])
            ),
            mistakes_of=f"{wrong['file']} on {wrong['runtime']}",
            mistakes=tuple(_mistakes(directory, wrong["pictures"], contract["labels"])),
            left_out=0,
            layers_of=layers_of,
            layers=layers,
            layer_errors=_layer_errors(directory),
            target=report.get("target"),
            tools=_tools(manifest),
            digests={model["file"]: model["sha256"] for model in contract["models"]},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{directory} is damaged", why=str(error), fix="build the model again") from error


def _epochs(directory: Path) -> tuple[Mapping[str, float | None], ...]:
    path = directory / "history.json"
    return tuple(read_json(path)["epochs"]) if path.is_file() else ()


def _mistakes(directory: Path, pictures: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Iterator[Mistake]:
    """Large pictures are made smaller; small ones stay as they are."""
    from PIL import Image

    for picture in pictures:
        with Image.open(directory / picture["picture"]) as image:
            image.thumbnail((_LONGEST_SIDE_PIXELS, _LONGEST_SIDE_PIXELS))
            stream = io.BytesIO()
            image.save(stream, "PNG", optimize=True)
        yield Mistake(
            image=picture["image"],
            label=labels[picture["label"]],
            answer=labels[picture["answer"]],
            confidence=picture["confidence"],
            png=stream.getvalue(),
        )


def _layers(directory: Path, models: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[LayerCost, ...]]:
    """Of one file of the build: an integer one where there is any, as that is what is deployed."""
    from emb.graph.cost import cost
    from emb.graph.files import read

    listed = [model["file"] for model in models if "int" in model["scheme"]] or [model["file"] for model in models]
    if not listed:
        return "", ()
    graph = read(directory / listed[0])
    return listed[0], tuple(
        LayerCost(
            name=operation.name,
            kind=operation.kind,
            macs=row.macs,
            parameters=row.parameters,
            output_bytes=row.activation_bytes,
        )
        for operation, row in zip(graph.operations, cost(graph).operations, strict=True)
        if row.macs != 0 or row.parameters or row.activation_bytes
    )


def _layer_errors(directory: Path) -> tuple[LayerError, ...]:
    path = directory / KEPT
    if not path.is_file():
        return ()
    return tuple(
        LayerError(**{key: layer[key] for key in ("layer", "sqnr_db", "cosine", "clipped_share")})
        for layer in read_json(path)["layers"]
    )


def _tools(manifest: Mapping[str, Any]) -> dict[str, str]:
    found = {name: version for stage in manifest["stages"].values() for name, version in stage["tools"].items()}
    return {"emb": manifest["emb"], **dict(sorted(found.items()))}
