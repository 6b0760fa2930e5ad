"""Describes the machine that this process runs on, as far as it decides how fast a model runs. Measures nothing."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from emb.spec.measurement import Machine

# In order of preference: x86 and some Arm kernels name the processor, a Raspberry Pi its board.
_CPU_FIELDS = ("model name", "Model", "Hardware", "cpu model")
_CPUINFO = Path("/proc/cpuinfo")
_DEVICE_TREE_HYPERVISOR = Path("/proc/device-tree/hypervisor")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_machine() -> Machine:
    """This machine, now: all but the load stays the same until something is installed or set anew."""
    return Machine(
        cpu=_first_field(_read(_CPUINFO) or "", _CPU_FIELDS) or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=_usable_cores(),
        system=platform.system(),
        kernel=platform.release(),
        governor=_read(_GOVERNOR),
        load_average=_load_average(),
    )


def machine_digest(machine: Machine) -> str:
    """sha256 (hex) of everything but the load: the part of a cache key that stands for the machine."""
    described = asdict(machine)
    del described["load_average"]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def free_memory_bytes() -> int | None:
    """What may be taken without swapping, as Linux estimates it (MemAvailable); None where the system does not say."""
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def is_virtual() -> bool:
    """Whether a host decides which cores these are, as far as x86's processor flags or the device tree say."""
    return "hypervisor" in _x86_flags() or _DEVICE_TREE_HYPERVISOR.exists()


def has_avx512() -> bool:
    """Whether the processor has vectors of 64 bytes of integers, as Linux names them (avx512bw)."""
    return "avx512bw" in _x86_flags()


def has_amx() -> bool:
    """Whether the processor multiplies whole tiles of 8-bit integers, as Linux names that (amx_int8)."""
    return "amx_int8" in _x86_flags()


def _x86_flags() -> list[str]:
    return _first_field(_read(_CPUINFO) or "", ("flags",)).split()


def _first_field(cpuinfo: str, names: tuple[str, ...]) -> str:
    """The first of these fields that the text of /proc/cpuinfo has, of its first processor; "" if it has none."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, content = line.partition(":")
        fields.setdefault(name.strip(), content.strip())
    return next((fields[name] for name in names if fields.get(name)), "")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # AttributeError: Windows has none
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
