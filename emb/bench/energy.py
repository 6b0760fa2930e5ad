"""Reads the energy counters of the processor's packages (RAPL), as Linux exposes them. Estimates nothing.

Source: kernel documentation, power/powercap/powercap.rst; the file energy_uj counts up to max_energy_range_uj.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """The counter of one package. range_uj: it begins again with 0 after this."""

    path: Path
    range_uj: int

    def read_uj(self) -> int:
        """Raises OSError or ValueError if the system does not give it."""
        return int(self.path.read_text(encoding="ascii"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """All packages of the machine. absence: why there is none, or ""."""

    packages: tuple[Counter, ...] = ()
    absence: str = ""

    def read_uj(self) -> tuple[int, ...]:
        """The counters of this moment, one for each package; empty without any."""
        return tuple(package.read_uj() for package in self.packages)

    def spent_uj(self, before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
        """What all packages took between two readings less than one turn of a counter apart; None without counters."""
        if not self.packages:
            return None
        return float(
            sum(
                now - then if now >= then else now - then + package.range_uj
                for package, then, now in zip(self.packages, before, after, strict=True)
            )
        )


def counters(root: Path = POWERCAP) -> Counters:
    """The counters below `root`. Zones within a package and the whole platform (psys) are not counted twice."""
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            if not (zone / "name").read_text(encoding="ascii").startswith("package"):
                continue
            counter = Counter(
                path=zone / "energy_uj",
                range_uj=int((zone / "max_energy_range_uj").read_text(encoding="ascii")),
            )
            counter.read_uj()
        except (OSError, ValueError) as error:
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no number in it"
            return Counters(absence=f"{zone.name} of the machine's RAPL counters cannot be read ({reason})")
        found.append(counter)
    return Counters(packages=tuple(found)) if found else Counters(absence="the machine exposes no RAPL counter")
