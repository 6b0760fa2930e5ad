"""A table of Markdown. Knows no column's meaning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> list[str]:
    """Its lines. left: so many columns, of names, are aligned to the left, and the figures after them to the right."""
    aligned = ["---" if index < left else "---:" for index in range(len(headers))]
    return ["| " + " | ".join(line) + " |" for line in (headers, aligned, *rows)]
