"""What a board is, seen over ssh before anything is copied, and what a bundle misses there. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from emb.deploy.ssh import Ssh
from emb.errors import BoardError
from emb.spec.bundle import Requirements

FIRST_SANE_CLOCK_S = 1_600_000_000
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPython:
    """An interpreter. version: "3.11.2".  bits: 32 or 64.  has_venv: it can make virtual environments."""

    path: str
    version: str
    bits: int
    has_venv: bool

    @property
    def minor(self) -> str:
        """ "3.11"."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """architecture: as `uname -m` says.  bits: of its programs, which a 64-bit kernel does not decide.

    glibc: "" if its C library is another.  clock_s: seconds since 1970 by the board's clock.
    free_bytes: where the home directory lies; None if unknown.  model: the board's name, or "".
    """

    architecture: str
    bits: int
    glibc: str
    clock_s: int
    home: str
    free_bytes: int | None
    model: str
    pythons: tuple[BoardPython, ...]

    @property
    def clock_is_wrong(self) -> bool:
        """Boards without a battery begin in 1970."""
        return self.clock_s < FIRST_SANE_CLOCK_S

    def to_json(self) -> dict[str, Any]:
        """The document of `emb deploy --json`."""
        return asdict(self)


def look(ssh: Ssh) -> BoardFacts:
    """Ask a board what it is. Raises BoardError if it cannot be reached."""
    script = resources.files("emb.deploy").joinpath("device/look.sh").read_bytes()
    return parse(ssh.run(["sh", "-s"], stdin=script).decode("utf-8", "replace"), host=ssh.host)


def parse(text: str, *, host: str) -> BoardFacts:
    """The facts in look.sh's output. Raises BoardError if it is not that."""
    values: dict[str, str] = {}
    pythons: list[BoardPython] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "python":
            version, bits, venv, path = value.split(" ", 3)
            pythons.append(BoardPython(path=path, version=version, bits=int(bits), has_venv=venv == "venv"))
        else:
            values[key] = value.strip()
    if not values.get("architecture"):
        raise BoardError(f"{host} does not say what it is", why=f"it answered {text[:200]!r}")
    architecture = values["architecture"]
    free = values.get("free_kib", "")
    return BoardFacts(
        architecture=_MACHINES.get(architecture, architecture),
        bits=int(values.get("bits") or 0),
        glibc=values.get("glibc", ""),
        clock_s=int(values.get("clock") or 0),
        home=values.get("home", ""),
        free_bytes=int(free) * 1024 if free.isdigit() else None,
        model=values.get("model", ""),
        pythons=tuple(pythons),
    )


def any_python(facts: BoardFacts, *, host: str) -> BoardPython:
    """An interpreter for what needs no runtime. Raises BoardError if there is none."""
    if not facts.pythons:
        raise BoardError(f"{host} has no Python", fix="install python3 there")
    return facts.pythons[0]


def chosen_python(facts: BoardFacts, requires: Requirements, *, host: str) -> BoardPython:
    """The board's interpreter that a bundle runs on. Raises BoardError that says all that does not fit."""
    fitting = [python for python in facts.pythons if python.minor in requires.python and python.bits == 64]
    misfits = [*_misfits(facts, requires), *_python_misfits(facts, requires, fitting)]
    if misfits:
        raise BoardError(
            f"{host} does not fit: {'; '.join(misfit.what for misfit in misfits)}",
            why="; ".join(misfit.why for misfit in misfits),
            fix="; ".join(dict.fromkeys(misfit.fix for misfit in misfits)),
        )
    return next(python for python in fitting if python.has_venv)


@dataclass(frozen=True, slots=True)
class _Misfit:
    what: str
    why: str
    fix: str


def _misfits(facts: BoardFacts, requires: Requirements) -> Iterator[_Misfit]:
    if requires.architecture not in ("any", facts.architecture):
        yield _Misfit(
            f"it is {facts.architecture}",
            f"the bundle is for {requires.architecture}",
            "bundle for a target of its architecture: emb targets",
        )
    if facts.bits != 64:
        yield _Misfit(
            f"its programs have {facts.bits} bits",
            "the runtimes have wheels for 64 bits alone, whatever the kernel is",
            "install the 64-bit system",
        )
    if requires.glibc and not facts.glibc:
        yield _Misfit(
            "its C library is not glibc",
            f"the runtime's wheels need glibc {requires.glibc}",
            "use a system with glibc",
        )
    elif _numbers(facts.glibc) < _numbers(requires.glibc):
        yield _Misfit(
            f"its glibc is {facts.glibc}",
            f"the runtime's wheels need {requires.glibc} or newer",
            "upgrade the board's system, or bundle for another runtime",
        )


def _python_misfits(facts: BoardFacts, requires: Requirements, fitting: list[BoardPython]) -> Iterator[_Misfit]:
    wanted = " or ".join(requires.python)
    if not facts.pythons:
        yield _Misfit("it has no Python", f"the bundle needs Python {wanted}", f"install Python {wanted}")
    elif not fitting:
        yield _Misfit(
            f"its Python is {', '.join(python.version for python in facts.pythons)}",
            f"the bundle needs Python {wanted} of 64 bits",
            f"install Python {wanted}, or bundle for the board's: --python",
        )
    elif not any(python.has_venv for python in fitting):
        yield _Misfit(
            f"its Python {fitting[0].version} cannot make a virtual environment",
            "the modules venv and ensurepip are not both there",
            "on Debian and Raspberry Pi OS: sudo apt-get install python3-venv",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
