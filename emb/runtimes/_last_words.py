"""Says what became of a worker: its exit code in words, and the end of what it wrote to stderr. Knows no process."""

from __future__ import annotations

import signal
from typing import IO

from emb.errors import RuntimeFailure

_TAIL_BYTES = 4096
_TAIL_LINES = 5
# What runtimes announce on every start; it explains nothing.
_CHATTER = ("INFO:",)


def last_words(stderr: IO[bytes]) -> list[str]:
    """The last lines, five at most, of a file that a process wrote its stderr to."""
    end = stderr.seek(0, 2)
    stderr.seek(max(0, end - _TAIL_BYTES))
    lines = stderr.read().decode(errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip() and not line.startswith(_CHATTER)]
    return told[-_TAIL_LINES:]


def death(label: str, model: str, *, exit_code: int, hung_s: float | None, words: list[str]) -> RuntimeFailure:
    """The error for a worker that is gone.

    exit_code: negative for a signal, as subprocess gives it.  hung_s: the time limit, if it was killed for that.
    """
    told = "\n       ".join(["its last words:", *words]) if words else "it left no last words"
    if hung_s is not None:
        return RuntimeFailure(
            f"{label} did not answer within {hung_s:g} s on {model}",
            why=told,
            fix="if the model is large, allow more time; else it hangs: run it on another runtime or in another mode",
        )
    if exit_code == -9:
        return RuntimeFailure(
            f"{label} was killed while it ran {model} (SIGKILL)",
            why=f"usually the system does so when memory runs out; {told}",
            fix="free memory or run less at the same time, then try again",
        )
    if exit_code < 0:
        return RuntimeFailure(
            f"{label} crashed on {model} ({_signal_name(-exit_code)})",
            why=told,
            fix="check that the file is whole; if it is, run it on another runtime or in another mode",
        )
    return RuntimeFailure(
        f"{label} ended on {model} (exit code {exit_code})",
        why=told,
        fix="`emb doctor` shows whether the runtime is installed as it should be",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
