"""Reads what Google's edgetpu_compiler says: the table of its log file and the sizes that it prints. Runs nothing.

The words are those of public logs of its versions 14.1 to 16.0; there is no later one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from emb.deploy.edgetpu import MAPPED
from emb.errors import ExportError

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)\s*$"
_ON_CHIP = "On-chip memory used for caching model parameters"
_OFF_CHIP = "Off-chip memory used for streaming uncached model parameters"
_SUBGRAPHS = "Number of Edge TPU subgraphs"
_OPERATIONS = "Total number of operations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: that many operations of a kind have this status, in the compiler's words."""

    kind: str
    count: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerLog:
    """version: of the compiler.  subgraphs: on the Edge TPU.

    on_chip_bytes, off_chip_bytes: parameters that stay on the chip, and those that are sent at every inference. The
    compiler prints them with two decimals of their unit, so that they are exact to 0.01 MiB at best.
    """

    version: str
    rows: tuple[Row, ...]
    on_chip_bytes: int
    off_chip_bytes: int
    subgraphs: int

    @property
    def operations(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def mapped(self) -> int:
        """Number of operations that run on the Edge TPU."""
        return sum(row.count for row in self.rows if row.status == MAPPED)

    @property
    def lost(self) -> frozenset[str]:
        """Kinds of which at least one operation runs on the processor."""
        return frozenset(row.kind for row in self.rows if row.status != MAPPED)


def parse(*, output: str, log: str) -> CompilerLog:
    """output: what the compiler printed.  log: its log file, which holds the table.

    Raises ExportError where a line is missing, or the table does not hold as many operations as the compiler counts.
    """
    rows = tuple(_rows(log))
    counted = _number(output, _OPERATIONS)
    if counted != sum(row.count for row in rows):
        raise _not_understood(f"it counts {counted} operations, and its table has {sum(row.count for row in rows)}")
    return CompilerLog(
        version=_line(output, r"Edge TPU Compiler version (\S+)", what="version")[0],
        rows=rows,
        on_chip_bytes=_bytes(output, _ON_CHIP),
        off_chip_bytes=_bytes(output, _OFF_CHIP),
        subgraphs=_number(output, _SUBGRAPHS),
    )


def reason_of(output: str) -> str:
    """The line in which the compiler says why it failed, or its last one; "" if it said nothing."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern in (r"Compilation failed: (.+)", r"(Compilation timeout\..*)", r"(Internal compiler error.*)"):
        for line in lines:
            if found := re.match(pattern, line):
                return found[1]
    telling = [line for line in lines if not line.startswith(("Compilation failed!", "Compilation child process"))]
    return telling[-1] if telling else ""


def _rows(log: str) -> Iterator[Row]:
    for line in log.splitlines():
        if found := re.match(r"([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*?)\s*$", line):
            yield Row(kind=found[1], count=int(found[2]), status=found[3])


def _bytes(output: str, label: str) -> int:
    value, unit = _line(output, rf"{label}:\s*{_SIZE}", what=label)
    return round(float(value) * _UNITS[unit])


def _number(output: str, label: str) -> int:
    return int(_line(output, rf"{label}:\s*(\d+)\s*$", what=label)[0])


def _line(output: str, pattern: str, *, what: str) -> tuple[str, ...]:
    for line in output.splitlines():
        if found := re.match(pattern, line.strip()):
            return found.groups()
    raise _not_understood(f"it does not say: {what}")


def _not_understood(why: str) -> ExportError:
    return ExportError(
        "what edgetpu_compiler says is not understood",
        why=why,
        fix="compile with its version 16.0, whose words emb knows; edgetpu_compiler --version",
    )
