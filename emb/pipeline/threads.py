"""How many threads a row is measured with."""

from __future__ import annotations

from emb.errors import SpecError


def threads_of(text: str | None, *, cores: int) -> tuple[int, ...]:
    """What `--threads` says: a number, "all", or nothing, which is one thread and then all of them.

    cores: that this process may use. Raises SpecError for anything else, and for more threads than cores.
    """
    if text is None:
        return (1, cores) if cores > 1 else (1,)
    if text == "all":
        return (cores,)
    count = int(text) if text.isascii() and text.isdigit() else 0
    if count < 1:
        raise SpecError(f"--threads cannot be {text!r}", fix=f"give a number from 1 to {cores}, or all")
    if count > cores:
        raise SpecError(
            f"--threads {count} are more than this machine has cores",
            why=f"emb may use {cores} here, and threads that wait for each other say nothing of a model",
            fix=f"give a number from 1 to {cores}, or all",
        )
    return (count,)
