"""What the board's Python must install for a bundle: pinned, with hashes, from emb's lock file. Installs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

LOCK = "requirements.lock"
# name: (distribution, the least glibc of its wheels by architecture, bytes that it and what it needs take installed).
# The first two are read off the wheels of the versions in the lock file, the bytes off a virtual environment of
# Python 3.11 with them, compiled files included, on x86-64, where they are the larger ones.
_WHEELS = {
    "litert": ("ai-edge-litert", {"aarch64": "2.27", "x86_64": "2.27"}, 90_000_000),
    "onnxruntime": ("onnxruntime", {"aarch64": "2.28", "x86_64": "2.28"}, 70_000_000),
    "tflite-runtime": ("tflite-runtime", {"aarch64": "2.34", "x86_64": "2.17"}, 8_000_000),
}
_NUMPY_BYTES = 80_000_000
_ENVIRONMENT_BYTES = 25_000_000  # a virtual environment with its pip
_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*\\?$")
_HASH = re.compile(r"^\s+--hash=(?P<hash>sha256:[0-9a-f]{64})\s*\\?$")
_VIA = re.compile(r"^\s+#\s+(?:via\s*)?(?P<name>[A-Za-z0-9._-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One entry of a lock file. marker: the environments that it is for, "" for all.  hashes: "sha256:…".

    wanted_by: names of the packages that need it.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """As pip reads it, without its hashes."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def lock_file() -> Path:
    """emb's lock file: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / LOCK
    return installed if installed.is_file() else package.parent / LOCK


def read_lock(text: str) -> tuple[Pin, ...]:
    """The pins of a lock file as uv writes it, with hashes and with the comments that say who needs them."""
    pins: list[Pin] = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        lines = block.splitlines()
        entry = _ENTRY.match(lines[0]) if lines else None
        if entry is None:
            continue
        hashes = [found["hash"] for line in lines[1:] if (found := _HASH.match(line))]
        wanted_by = [found["name"] for line in lines[1:] if (found := _VIA.match(line)) and found["name"]]
        pins.append(
            Pin(
                name=entry["name"],
                version=entry["version"],
                marker=(entry["marker"] or "").strip(),
                hashes=tuple(hashes),
                wanted_by=tuple(wanted_by),
            )
        )
    return tuple(pins)


def pins_for(runtimes: Iterable[str], lock: Iterable[Pin]) -> tuple[Pin, ...]:
    """numpy, the runtimes, and all that they need, on Linux. runtimes: public names of the registry emb.runtimes."""
    pins = [pin for pin in lock if "win32" not in pin.marker]
    wanted = {"numpy", *(_WHEELS[name][0] for name in runtimes)}
    while more := {pin.name for pin in pins if wanted & set(pin.wanted_by)} - wanted:
        wanted |= more
    return tuple(sorted((pin for pin in pins if pin.name in wanted), key=lambda pin: (pin.name, pin.version)))


def requirements_text(pins: Iterable[Pin]) -> str:
    """A requirements file for `pip install --require-hashes`."""
    lines = ["# What run.py needs. Install it with: pip install --require-hashes -r requirements.txt"]
    for pin in pins:
        lines.append(" \\\n    ".join([pin.requirement, *(f"--hash={one}" for one in pin.hashes)]))
    return "\n".join(lines) + "\n"


def needed(pins: Iterable[Pin], *, architecture: str, python: str) -> tuple[Pin, ...]:
    """The pins whose marker holds on Linux with this architecture and Python ("3.11")."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": architecture,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return tuple(pin for pin in pins if not pin.marker or Marker(pin.marker).evaluate(environment))


def least_glibc(pins: Iterable[Pin], *, architecture: str, pythons: Iterable[str]) -> str:
    """The least glibc for which all these pins have wheels, "" if the architecture is open."""
    listed = tuple(pins)
    names = {pin.name for python in pythons for pin in needed(listed, architecture=architecture, python=python)}
    versions = [glibc.get(architecture, "") for name, glibc, _ in _WHEELS.values() if name in names]
    return max(versions, key=lambda version: tuple(map(int, filter(None, version.split(".")))), default="")


def installed_bytes(runtimes: Iterable[str]) -> int:
    """What a virtual environment with numpy and these runtimes takes."""
    return _ENVIRONMENT_BYTES + _NUMPY_BYTES + sum(_WHEELS[name][2] for name in runtimes)
