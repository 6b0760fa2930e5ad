"""What a bundle says of itself: bundle.json as values. Knows no archive and no board."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emb.spec.target import Architecture

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
# What lies in an unpacked bundle without being a part of it: what Python and the person at the board make there.
IGNORED_DIRECTORIES = ("__pycache__", ".venv", "venv")

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the bundle. sha256: hex."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError("bytes must not be negative")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenOutput:
    """What the model gives, bit for bit, for the first of the golden images on a runtime in a mode. file: a .npy."""

    runtime: str
    mode: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the board must have.

    architecture: as `uname -m` says it, or "any".  python: versions for which the runtimes have wheels.
    glibc: the least that the wheels take, "" where none is known.  free_bytes: of the bundle and what it installs.
    """

    architecture: Architecture
    python: tuple[str, ...]
    glibc: str
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """The document bundle.json. The sha256 of its bytes is the bundle's digest.

    name: of the build.  target: the target's name.  model: the file that run.py runs.
    runtime, mode: what it runs on unless told otherwise; one of `golden` is of them.
    compiled: the same model for the target's accelerator, "" if the build has none.
    files: every other file of the bundle, by its path with forward slashes.
    Raises ValueError for a name that could lead out of the bundle's directory or astray in a shell.
    """

    format_version: int
    name: str
    target: str
    model: str
    runtime: str
    mode: str
    golden: tuple[GoldenOutput, ...]
    requires: Requirements
    files: Mapping[str, FileEntry]
    compiled: str = ""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version is {self.format_version}; this emb reads {FORMAT_VERSION}")
        for field in ("name", "target"):
            if not _SEGMENT.fullmatch(getattr(self, field)):
                raise ValueError(f"{field} must consist of letters, digits, '.', '_', '+' and '-'")
        for path in self.files:
            folders = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 1)]
            if not is_safe_path(path) or path == MANIFEST or path.split("/")[0] in IGNORED_DIRECTORIES:
                raise ValueError(f"files must not name {path!r}")
            if any(folder in self.files for folder in folders):
                raise ValueError(f"files names a folder of {path!r} as a file")
        for path in (self.model, *(golden.file for golden in self.golden), *filter(None, [self.compiled])):
            if path not in self.files:
                raise ValueError(f"files lacks {path!r}")
        if (self.runtime, self.mode) not in [(golden.runtime, golden.mode) for golden in self.golden]:
            raise ValueError(f"golden lacks the outputs of {self.runtime} ({self.mode})")

    @property
    def directory_name(self) -> str:
        """What the bundle's directory is called, and the one inside its archive."""
        return f"{self.name}-{self.target}"

    def to_json(self) -> dict[str, Any]:
        """The document, whose keys are the fields' names."""
        return {
            "format_version": self.format_version,
            "name": self.name,
            "target": self.target,
            "model": self.model,
            "compiled": self.compiled,
            "runtime": self.runtime,
            "mode": self.mode,
            "golden": [{"runtime": golden.runtime, "mode": golden.mode, "file": golden.file} for golden in self.golden],
            "requires": {
                "architecture": self.requires.architecture,
                "python": list(self.requires.python),
                "glibc": self.requires.glibc,
                "free_bytes": self.requires.free_bytes,
            },
            "files": {
                path: {"bytes": entry.bytes, "sha256": entry.sha256} for path, entry in sorted(self.files.items())
            },
        }


def is_safe_path(path: str) -> bool:
    """Whether a file of a bundle may have this path: relative, inside, and harmless in a shell.

    Letters, digits, '.', '_', '+' and '-' only, no segment that begins with '.', '-' or '+'.
    """
    segments = path.split("/")
    return len(path) <= _MOST_NAME_BYTES and all(_SEGMENT.fullmatch(segment) for segment in segments)


def is_safe_name(name: str) -> bool:
    """Whether a build or a target of this name can be bundled."""
    return "/" not in name and is_safe_path(name)
