"""Makes a bundle of a build: one of its models, with what a board needs to run it and to prove that it does so right.

Everything in it is a copy of what the build holds or follows from it, so that the same build gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emb import deploy
from emb.deploy import bundle as files
from emb.deploy.instructions import instructions
from emb.deploy.requirements import (
    installed_bytes,
    least_glibc,
    lock_file,
    pins_for,
    read_lock,
    requirements_text,
)
from emb.deploy.wheels import download, require_wheels
from emb.errors import SpecError
from emb.pipeline.bundle_source import (
    chosen_model,
    compiled_file,
    contract_of,
    copy_files,
    golden_file,
    golden_ways,
    require_classifier,
    require_fit,
)
from emb.pipeline.deliverable import Deliverable, located
from emb.pipeline.json_files import write_json
from emb.pipeline.output import require_replaceable
from emb.pipeline.recipes import load_target
from emb.registry import nearest
from emb.spec.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    BundleManifest,
    FileEntry,
    GoldenOutput,
    Requirements,
    is_safe_name,
)
from emb.spec.target import Target
from emb.store import replace_directory, sha256_of_file

_IMAGES = "golden/images.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """What was made. digest: sha256 (hex) of bundle.json.  archive_bytes: of the .tar.gz.  notes: what to know."""

    directory: Path
    archive: Path
    archive_bytes: int
    digest: str
    manifest: BundleManifest
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `emb bundle --json`."""
        return {
            "directory": str(self.directory),
            "archive": str(self.archive),
            "archive_bytes": self.archive_bytes,
            "digest": self.digest,
            "notes": list(self.notes),
            "bundle": self.manifest.to_json(),
        }


def bundle(
    build: Path,
    *,
    target: str,
    output_directory: Path | None = None,
    file: str | None = None,
    vendor: bool = False,
    python: str | None = None,
) -> Bundled:
    """Bundle a build for a target: a directory, and its .tar.gz beside it.

    build: its directory, or its name in builds/.
    file: a model of the build by its name; by default the first int8 one that a runtime of the target reads.
    output_directory: bundles/<build>-<target> by default.
    vendor: put the wheels for the board into the bundle, for `python`, by default the target's first version.
    Raises SpecError, ModelError or StoreError; nothing is written then.
    """
    build = located(build)
    machine = load_target(target)
    _require_runtimes(machine)
    pythons = _pythons(machine, python=python, vendor=vendor)
    name = build.resolve().name
    for what, text in (("build", name), ("target", machine.name)):
        if not is_safe_name(text):
            raise SpecError(
                f"a {what} called {text!r} cannot be bundled",
                why="its name becomes a directory on the board: letters, digits, '.', '_', '+' and '-'",
                fix=f"rename the {what}",
            )
    chosen = chosen_model(build, machine, file)
    require_fit(chosen, machine)
    ways = golden_ways(chosen, machine)
    place = output_directory or Path("bundles") / f"{name}-{machine.name}"
    require_replaceable(place, kind="bundle", manifest=MANIFEST)

    made: list[BundleManifest] = []

    def fill(folder: Path) -> None:
        made.append(_fill(folder, chosen, name=name, target=machine, ways=ways, pythons=pythons, vendor=vendor))

    replace_directory(place, fill)
    archive = place.with_name(place.name + ".tar.gz")
    files.write_archive(place, archive, manifest=made[0])
    return Bundled(
        directory=place,
        archive=archive,
        archive_bytes=archive.stat().st_size,
        digest=sha256_of_file(place / MANIFEST),
        manifest=made[0],
        notes=_notes(made[0], machine),
    )


def _require_runtimes(target: Target) -> None:
    if not target.runtimes:
        raise SpecError(
            f"emb bundle makes no bundle for {target.name} yet",
            why="it is a microcontroller: a model is compiled into its firmware, and no Python runs there",
            fix="take the int8 .tflite of the build for TensorFlow Lite Micro; emb check says whether it fits",
        )


def _pythons(target: Target, *, python: str | None, vendor: bool) -> tuple[str, ...]:
    """The versions that the bundle is for: wheels are of one alone."""
    if vendor:
        require_wheels(target)
    if python is not None and python not in target.python:
        raise SpecError(f"{target.name} has no wheels for Python {python!r}", fix=nearest(python, target.python))
    if python is not None or vendor:
        return (python,) if python is not None else target.python[:1]
    return target.python


def _fill(
    folder: Path,
    chosen: Deliverable,
    *,
    name: str,
    target: Target,
    ways: tuple[tuple[str, str], ...],
    pythons: tuple[str, ...],
    vendor: bool,
) -> BundleManifest:
    """Write every file of the bundle; bundle.json is the last."""
    build = chosen.path.parent
    golden = tuple(
        GoldenOutput(runtime=runtime, mode=mode, file=f"golden/{runtime}.{mode}.npy") for runtime, mode in ways
    )
    compiled = compiled_file(chosen, target)
    copies = {
        chosen.path.name: chosen.path.name,
        "labels.txt": "labels.txt",
        _IMAGES: _IMAGES,
        **{one.file: golden_file(chosen, one.runtime, one.mode) for one in golden},
        **({compiled: compiled} if compiled else {}),
    }
    copy_files(build, folder, copies)
    contract = contract_of(chosen)
    require_classifier(contract)
    write_json(folder / "contract.json", asdict(contract))
    shutil.copyfile(Path(deploy.__file__).parent / "device" / "run.py", folder / "run.py")
    runtimes = tuple(dict.fromkeys(runtime for runtime, _ in ways))
    pins = pins_for(runtimes, read_lock(lock_file().read_text(encoding="utf-8")))
    (folder / "requirements.txt").write_text(requirements_text(pins), encoding="utf-8")
    if vendor:
        download(pins, folder / "wheels", target=target, python=pythons[0])
    entries = files.entries_of(folder)
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        name=name,
        target=target.name,
        model=chosen.path.name,
        compiled=compiled,
        runtime=ways[0][0],
        mode=ways[0][1],
        golden=golden,
        requires=Requirements(
            architecture=target.architecture,
            python=pythons,
            glibc=least_glibc(pins, architecture=target.architecture, pythons=pythons),
            # Archive and directory side by side while it is brought there.
            free_bytes=_rounded(2 * sum(entry.bytes for entry in entries.values()) + installed_bytes(runtimes)),
        ),
        files=entries,
    )
    page = instructions(manifest, contract, target, vendored=vendor)
    (folder / "README.md").write_text(page, encoding="utf-8")
    manifest = replace(manifest, files=_with_file(entries, folder, "README.md"))
    (folder / MANIFEST).write_bytes(files.manifest_text(manifest))
    files.set_modes(folder)
    return manifest


def _with_file(entries: Mapping[str, FileEntry], folder: Path, name: str) -> Mapping[str, FileEntry]:
    path = folder / name
    return {**entries, name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of_file(path))}


def _rounded(number: int) -> int:
    """Up to the next million."""
    return -(-number // 1_000_000) * 1_000_000


def _notes(manifest: BundleManifest, target: Target) -> tuple[str, ...]:
    if target.accelerator.kind == "none":
        return ()
    if manifest.compiled:
        return (f"{manifest.compiled} is in it; run.py runs {manifest.model} on the processor",)
    return (
        f"the build holds no file compiled for the {target.accelerator.kind}: the bundle delivers {manifest.model}, "
        "which is the input of its compiler and runs on the processor alone",
    )
