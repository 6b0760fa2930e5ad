"""Every command that README and docs show exists, with the options that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from emb.cli import app

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown(page: Path) -> list[str]:
    """Command lines in console blocks, without comments."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if line]


def complaint(line: str) -> str:
    """What is wrong with a command line, or ""."""
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return "" if words[1] in targets else f"no make target {words[1]}"
    if words[0] != "emb":
        return ""
    command = typer.main.get_command(app)
    while words[1:] and words[1] in getattr(command, "commands", {}):
        command = command.commands[words[1]]
        words = words[1:]
    options = (option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
    known = {*options, "--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"{line}: unknown {unknown}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path):
    assert [complaint(line) for line in shown(page) if complaint(line)] == []


def test_a_wrong_command_would_be_noticed():
    assert complaint("make nothing")
    assert complaint("emb build lenet --quantise int8")
    assert shown(ROOT / "README.md")
