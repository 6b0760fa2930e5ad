"""Downloads the wheels of a bundle for a board that has no network, through the user's own pip. Knows no bundle."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from emb.deploy.requirements import Pin, needed, requirements_text
from emb.errors import SpecError, StoreError
from emb.spec.target import Target

# What the wheels in the lock file are tagged with; pip takes each tag literally when a platform is given.
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_WORDS = 6


def require_wheels(target: Target) -> None:
    """Raises SpecError if the target does not say which wheels it takes."""
    if target.architecture not in ("aarch64", "x86_64") or not target.python:
        raise SpecError(
            f"there are no wheels to vendor for {target.name}",
            why=f"its architecture is {target.architecture}",
            fix="leave --vendor out, or take a target with architecture aarch64 or x86_64",
        )


def download(pins: Iterable[Pin], directory: Path, *, target: Target, python: str) -> None:
    """Put one wheel of each pin that the target needs into `directory`, hashes checked by pip.

    python: a version of the target's, "3.11". pip's own configuration says where the wheels come from.
    Raises StoreError if they cannot be had.
    """
    if find_spec("pip") is None:
        raise StoreError(
            "cannot download wheels",
            why="this Python has no pip",
            fix=f"install it ({sys.executable} -m ensurepip), or leave --vendor out",
        )
    wanted = needed(pins, architecture=target.architecture, python=python)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emb-") as folder:
        # Without markers: pip would ask them of this Python, not of the board's.
        plain = [Pin(name=pin.name, version=pin.version, marker="", hashes=pin.hashes) for pin in wanted]
        listed = Path(folder) / "requirements.txt"
        listed.write_text(requirements_text(plain), encoding="utf-8")
        call = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-input"]
        call += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", python]
        for platform in _PLATFORMS:
            call += ["--platform", f"{platform}_{target.architecture}"]
        call += ["--dest", str(directory), "--requirement", str(listed)]
        done = subprocess.run(call, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise StoreError(
            f"cannot download the wheels for {target.name}",
            why="\n       ".join(said[-_WORDS:]) or f"pip ended with exit code {done.returncode}",
            fix="check the network and pip's configuration (pip config list), or leave --vendor out",
        )
