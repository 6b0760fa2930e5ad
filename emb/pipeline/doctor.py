"""Examines the machine: versions, runtimes, data sets, cache. Says how to get what is missing. Repairs nothing."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from emb.store import cache_directory

# Without these no model can be trained and exported; the runtimes are reported by their own registry.
_PACKAGES = ("tensorflow", "keras", "numpy", "onnx", "tf2onnx", "ai-edge-quantizer", "scikit-learn")
_LEAST_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """state: "absent" is a choice less, "broken" keeps emb from working."""

    part: str
    state: Literal["ok", "absent", "broken"]
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"part": self.part, "state": self.state, "found": self.found, "fix": self.fix}


def examine(*, data_dir: Path | None = None) -> tuple[Finding, ...]:
    """Everything that decides what emb can do on this machine. Imports none of the packages it names."""
    return (_python(), *_packages(), *_runtimes(), *_data_sets(data_dir), _cache())


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()} {platform.system()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(part="python", state="ok", found=found)
    return Finding(part="python", state="broken", found=found, fix="use Python 3.11, 3.12 or 3.13")


def _packages() -> list[Finding]:
    findings = []
    for name in _PACKAGES:
        try:
            findings.append(Finding(part=name, state="ok", found=version(name)))
        except PackageNotFoundError:
            fix = "install emb again: pip install ."
            findings.append(Finding(part=name, state="broken", found="not installed", fix=fix))
    return findings


def _runtimes() -> list[Finding]:
    from emb.runtimes import RUNTIMES

    findings = []
    for name in RUNTIMES.names():
        runtime = RUNTIMES.get(name)
        if absence := runtime.absence():
            findings.append(Finding(part=f"runtime {name}", state="absent", found="not installed", fix=absence))
        else:
            found = f"{runtime.version()}, modes: {', '.join(runtime.MODES)}"
            findings.append(Finding(part=f"runtime {name}", state="ok", found=found))
    return findings


def _data_sets(data_dir: Path | None) -> list[Finding]:
    from emb.data import DATA, locate, search_directories
    from emb.spec.dataset import DataRequest

    request = DataRequest(directories=search_directories(data_dir))
    findings = []
    for name in DATA.names():
        if name in ("folder", "arrays"):
            continue  # these are what the user names, not something to be found
        located = locate(name, request)
        if located.found:
            findings.append(Finding(part=f"data {name}", state="ok", found=str(located.directory)))
        else:
            fix = f"get it: emb data fetch {name}"
            findings.append(Finding(part=f"data {name}", state="absent", found="not found", fix=fix))
    return findings


def _cache() -> Finding:
    directory = cache_directory()
    existing = directory
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    found = f"{directory}, {free / 2**30:.1f} GiB free"
    if free < _LEAST_FREE_BYTES:
        fix = "free some space, or set EMB_CACHE_DIR to another place"
        return Finding(part="cache", state="broken", found=found, fix=fix)
    return Finding(part="cache", state="ok", found=found)
