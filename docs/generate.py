"""Writes the generated part of the docs: the command line's help. `--check` only says whether it is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reference" / "cli.md"
HEAD = """# Command line

Generated from the commands' own help by `make golden`.

Every command takes `--json`, which prints one JSON document on stdout and nothing else; messages and bars go to
stderr. Exit codes: 0 done; 1 something failed on the way (a runtime, a converter), the rest was done; 2 the input was
wrong, nothing was written; 130 interrupted, run again to resume. `NO_COLOR` is honoured.
"""


def commands() -> list[str]:
    """Every command and group that emb has, in the order of its help; "" is emb itself."""
    from typer.main import get_command

    from emb.cli import app

    found = [""]
    for name, command in get_command(app).commands.items():
        found.append(name)
        found += [f"{name} {inner}" for inner in getattr(command, "commands", {})]
    return found


def help_of(command: str) -> str:
    """The help text of one command, as wide as the page."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    call = [sys.executable, "-c", "from emb.cli import app; app(prog_name='emb')", *command.split(), "--help"]
    text = subprocess.run(call, capture_output=True, text=True, check=True, env=environment).stdout
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for command in commands():
        title = f"emb {command}".strip()
        parts.append(f"## {title}\n\n```text\n{help_of(command)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    fresh = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == fresh:
        return 0
    print(f"{PAGE.name} is out of date: run `make golden`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
