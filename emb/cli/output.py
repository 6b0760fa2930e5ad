"""Prints to the terminal: errors, JSON documents, tables. Decides nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from emb.errors import EmbError


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_error(error: EmbError, *, as_json: bool) -> None:
    """What, why and fix on stderr; with --json also as a document on stdout."""
    from rich.markup import escape

    if as_json:
        print_json({"error": {"what": error.what, "why": error.why, "fix": error.fix}})
    stderr().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)


def stdout() -> Console:
    """The console for what was asked for. Plain text of full width where stdout is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def stderr() -> Console:
    """The console for everything else."""
    from rich.console import Console

    return Console(stderr=True)
