"""A small program that behaves like edgetpu_compiler, and texts of our own in the format of its public logs.

The compiler is closed and is not here: the texts are no copies of what it once said, and their figures are made up.
What emb starts is a real process with the compiler's options, exit codes and files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

VERSION = "16.0.384591198"


def table(rows: Sequence[tuple[str, int, str]], *, model: str = "model") -> str:
    """The log file: (kind, count, status) in columns."""
    lines = [f"{kind:<30} {count:<10} {status}" for kind, count, status in rows]
    head = [f"Edge TPU Compiler version {VERSION}", f"Input: {model}.tflite", f"Output: {model}_edgetpu.tflite", ""]
    return "\n".join([*head, f"{'Operator':<31}{'Count':<11}Status", "", *lines, ""])


def output(
    rows: Sequence[tuple[str, int, str]],
    *,
    model: str = "model",
    on_chip: str = "1.00KiB",
    off_chip: str = "0.00B",
    subgraphs: int = 1,
) -> str:
    """What is printed, with the table again, as the option -s has it."""
    total = sum(count for _, count, _ in rows)
    mapped = sum(count for _, count, status in rows if status == "Mapped to Edge TPU")
    lines = [
        f"Edge TPU Compiler version {VERSION}",
        "Started a compilation timeout timer of 600 seconds.",
        "",
        "Model compiled successfully in 321 ms.",
        "",
        f"Input model: {model}.tflite",
        "Input size: 12.34KiB",
        f"Output model: {model}_edgetpu.tflite",
        "Output size: 23.45KiB",
        f"On-chip memory used for caching model parameters: {on_chip}",
        "On-chip memory remaining for caching model parameters: 7.00MiB",
        f"Off-chip memory used for streaming uncached model parameters: {off_chip}",
        f"Number of Edge TPU subgraphs: {subgraphs}",
        f"Total number of operations: {total}",
        f"Operation log: {model}_edgetpu.log",
    ]
    if mapped < total:
        lines += [
            "",
            "Model successfully compiled but not all operations are supported by the Edge TPU.",
            f"Number of operations that will run on Edge TPU: {mapped}",
            f"Number of operations that will run on CPU: {total - mapped}",
        ]
    shown = table(rows, model=model).split("\n", 4)[4]
    return "\n".join([*lines, "", shown, "Compilation child process completed within timeout period.", ""]) + (
        "Compilation succeeded! \n"
    )


def failure(reason: str) -> str:
    """What is printed where nothing is compiled."""
    said = f"Compilation failed: {reason}\n" if reason else ""
    return (
        f"Edge TPU Compiler version {VERSION}\nStarted a compilation timeout timer of 600 seconds.\n"
        "ERROR: Restored original execution plan after delegate application failure.\n"
        f"{said}Compilation child process completed within timeout period.\nCompilation failed! \n"
    )


PROGRAM = """\
#!{python} -SE
import json, pathlib, subprocess, sys
here = pathlib.Path(__file__)
plan = json.loads(here.with_name("plan.json").read_text())
here.with_name("call.json").write_text(json.dumps(sys.argv[1:]))
if plan["hang"]:
    # As the compiler itself, which works in a child of its own.
    child = subprocess.Popen(["sleep", "600"])
    here.with_name("child").write_text(str(child.pid))
    child.wait()
print(plan["output"], end="")
model = pathlib.Path(sys.argv[-1])
folder = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
if plan["log"] is not None:
    (folder / (model.stem + "_edgetpu.log")).write_text(plan["log"])
if plan["compiles"]:
    (folder / (model.stem + "_edgetpu.tflite")).write_bytes(b"compiled " + model.read_bytes())
sys.exit(plan["code"])
"""


class Tool:
    """The program. path: where it lies, in a directory at the head of the PATH."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "edgetpu_compiler"
        self.path.write_text(PROGRAM.format(python=sys.executable))
        self.path.chmod(0o755)
        self.will([("CONV_2D", 1, "Mapped to Edge TPU")])

    def will(
        self,
        rows: Sequence[tuple[str, int, str]],
        *,
        code: int = 0,
        log: bool = True,
        compiles: bool = True,
        hang: bool = False,
        printed: str | None = None,
        **sizes: Any,
    ) -> None:
        """What it does when it is called next. printed: in place of the output that belongs to the rows."""
        plan = {
            "output": output(rows, **sizes) if printed is None else printed,
            "log": table(rows) if log else None,
            "compiles": compiles,
            "hang": hang,
            "code": code,
        }
        self.path.with_name("plan.json").write_text(json.dumps(plan))

    @property
    def call(self) -> list[str] | None:
        """The arguments of the last call, or None if there was none."""
        path = self.path.with_name("call.json")
        return json.loads(path.read_text()) if path.exists() else None

    def child_ends(self) -> bool:
        """Whether the child of a call that hung ends soon; a signal takes a moment to arrive."""
        status = Path("/proc", self.path.with_name("child").read_text(), "stat")
        for _ in range(500):
            # A process that nobody has waited for keeps its entry, with the state Z.
            if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            time.sleep(0.02)
        return False


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """The program on the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return Tool(directory)
