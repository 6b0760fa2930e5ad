"""Reads and writes the JSON files of artifacts and builds. Knows no document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Indented, sorted, with a final newline: the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def replace_json(path: Path, value: Any) -> None:
    """The same in one step: who finds the file finds the whole of it, also after an interruption."""
    fresh = path.with_name(f".{path.name}")
    write_json(fresh, value)
    fresh.replace(path)


def replace_text(path: Path, text: str) -> None:
    """The same with a text."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
