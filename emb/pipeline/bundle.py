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
from emb.errors import ModelError, SpecError, StoreError
from emb.pipeline.check import check_graph
from emb.pipeline.deliverable import Deliverable, find
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.recipes import load_target
from emb.registry import nearest
from emb.runtimes import RUNTIMES
from emb.spec.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    BundleManifest,
    FileEntry,
    GoldenOutput,
    Requirements,
    is_safe_name,
)
from emb.spec.contract import Contract
from emb.spec.decode import decode
from emb.spec.target import Target
from emb.store import MANIFEST as BUILD_MANIFEST
from emb.store import explained, replace_directory, sha256_of_file

# Measured on four public int8 models: the same bits on x86-64 and on arm64. The kernels that the TFLite runtimes take
# without a delegate differ, and with them all that tflite-runtime does by default; floats differ everywhere.
SAME_BITS_EVERYWHERE = (
    ("litert", "default"),
    ("litert", "reference"),
    ("tflite-runtime", "reference"),
    ("onnxruntime", "default"),
)
_SCHEMES = ("int8", "int8-uint8")
_COMPILED_SUFFIXES = {"edge-tpu": "_edgetpu.tflite", "ethos-u": "_vela.tflite"}
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

    file: a model of the build by its name; by default the first int8 one that a runtime of the target reads.
    output_directory: bundles/<build>-<target> by default.
    vendor: put the wheels for the board into the bundle, for `python`, by default the target's first version.
    Raises SpecError, ModelError or StoreError; nothing is written then.
    """
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
    chosen = _chosen(build, machine, file)
    _require_fit(chosen, machine)
    digests = _digests_of(build)
    ways = _ways(chosen, machine, digests)
    place = output_directory or Path("bundles") / f"{name}-{machine.name}"
    _require_replaceable(place)

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


def _chosen(build: Path, target: Target, file: str | None) -> Deliverable:
    """The model to bundle. Raises ModelError if the build has none that is fit."""
    contract = build / "contract.json"
    if not (contract.is_file() and (build / BUILD_MANIFEST).is_file()):
        raise ModelError(
            f"{build} is no build",
            why=f"it holds no {'contract.json' if not contract.is_file() else BUILD_MANIFEST}",
            fix="give a directory that emb build has made",
        )
    models = _read_document(contract)["models"]
    names = [model["file"] for model in models]
    if file is not None:
        if file not in names:
            raise ModelError(f"{build} has no model {file!r}", fix=nearest(file, names))
        models = [model for model in models if model["file"] == file]
    formats = {read for runtime in target.runtimes for read in RUNTIMES.get(runtime).FORMATS}
    fit = [model["file"] for model in models if model["scheme"] in _SCHEMES and model["format"] in formats]
    if not fit:
        raise ModelError(
            f"{build} has no int8 model for {target.name}"
            if file is None
            else f"{file} cannot be bundled for {target.name}",
            why=f"{target.name} runs int8 files of the formats {', '.join(sorted(formats))}; there is "
            + ", ".join(f"{model['file']} ({model['scheme']})" for model in models),
            fix="build one: emb build RECIPE --quantize int8",
        )
    return find(build / fit[0])


def _require_fit(chosen: Deliverable, target: Target) -> None:
    bytes_of_file = chosen.path.stat().st_size
    faults = check_graph(chosen.graph, source=chosen.path.name, target=target, file_bytes=bytes_of_file).faults
    if faults:
        raise ModelError(
            f"{chosen.path.name} does not fit {target.name}: {faults[0].what}",
            why="\n       ".join(fault.why for fault in faults),
            fix=faults[0].fix,
        )


def _digests_of(build: Path) -> Mapping[str, str]:
    return dict(_read_document(build / BUILD_MANIFEST)["files"])


def _read_document(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged", why=str(error), fix="build the model again") from error


def _ways(chosen: Deliverable, target: Target, digests: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """(runtime, mode) whose answers the build holds and the board must give; the target's first choice comes first."""
    possible = sorted(
        (way for way in SAME_BITS_EVERYWHERE if way[0] in target.runtimes),
        key=lambda way: (target.runtimes.index(way[0]), way[1] != "default"),
    )
    ways = tuple(way for way in possible if _golden_file(chosen, *way) in digests)
    if not ways:
        asked = ", ".join(f"{runtime} ({mode})" for runtime, mode in possible)
        raise ModelError(
            f"the build holds no answers of {chosen.path.name} that {target.name} must give",
            why=f"none of {asked} was run when it was built",
            fix="build it where one of these runtimes is installed; emb doctor says which are",
        )
    return ways


def _golden_file(chosen: Deliverable, runtime: str, mode: str) -> str:
    return f"golden/{chosen.path.name}.{runtime}.{mode}.npy"


def _require_replaceable(place: Path) -> None:
    if place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise StoreError(
            f"{place} holds something else than a bundle",
            why="emb replaces the whole directory and would delete it",
            fix="choose another place with --output, or empty it yourself",
        )


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
    compiled = _compiled_file(chosen, target)
    copies = {
        chosen.path.name: chosen.path.name,
        "labels.txt": "labels.txt",
        _IMAGES: _IMAGES,
        **{one.file: _golden_file(chosen, one.runtime, one.mode) for one in golden},
        **({compiled: compiled} if compiled else {}),
    }
    _copy(build, folder, copies)
    contract = contract_of(chosen)
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


def _copy(build: Path, folder: Path, copies: Mapping[str, str]) -> None:
    """Files of the build, each of them still what its manifest says. Raises ModelError otherwise."""
    digests = _digests_of(build)
    for name, source in copies.items():
        target = folder / name
        with explained("write", folder):
            target.parent.mkdir(exist_ok=True)
        try:
            shutil.copyfile(build / source, target)
        except FileNotFoundError as error:
            raise ModelError(f"{build / source} is missing", fix="build the model again") from error
        # A file that was compiled afterwards is not in the manifest.
        if source in digests and sha256_of_file(target) != digests[source]:
            raise ModelError(
                f"{build / source} is not what was built",
                why="its sha256 differs from the one in the build's manifest",
                fix="build the model again",
            )


def _compiled_file(chosen: Deliverable, target: Target) -> str:
    """The name of the model's compiled form in the build, or ""."""
    suffix = _COMPILED_SUFFIXES.get(target.accelerator.kind)
    if suffix is None or chosen.format != "tflite":
        return ""
    name = chosen.path.stem + suffix
    return name if (chosen.path.parent / name).is_file() else ""


def contract_of(chosen: Deliverable) -> Contract:
    """The contract of the build that a model lies in, with this one model. Raises ModelError if it is damaged."""
    path = chosen.path.parent / "contract.json"
    try:
        contract = decode(Contract, _read_document(path), source=str(path))
    except SpecError as error:
        raise ModelError(error.what, why=error.why, fix="build the model again") from error
    return replace(contract, models=tuple(model for model in contract.models if model.file == chosen.path.name))


def _notes(manifest: BundleManifest, target: Target) -> tuple[str, ...]:
    if target.accelerator.kind == "none":
        return ()
    if manifest.compiled:
        return (f"{manifest.compiled} is in it; run.py runs {manifest.model} on the processor",)
    return (
        f"the build holds no file compiled for the {target.accelerator.kind}: the bundle delivers {manifest.model}, "
        "which is the input of its compiler and runs on the processor alone",
    )
