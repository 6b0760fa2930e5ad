"""Programs are given much and say much at the same time, end early, and fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import IO, cast

import pytest

from emb.deploy.exchange import exchange

ECHO = "import sys\nwhile block := sys.stdin.buffer.read1(1000):\n    sys.stdout.buffer.write(block)\n"


def pipes(program: str, *, unbuffered: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0 if unbuffered else -1,
    )


@pytest.mark.parametrize("unbuffered", [True, False])
def test_more_than_a_pipe_holds_goes_both_ways(unbuffered: bool) -> None:
    chunks = [bytes([number]) * 700_000 for number in range(5)] + [b"", b"end"]
    with pipes(ECHO, unbuffered=unbuffered) as process:
        assert exchange(cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout), chunks) == b"".join(chunks)
    assert process.returncode == 0


def test_a_program_that_ends_early_is_no_error_here() -> None:
    with pipes("print('enough'); raise SystemExit(3)", unbuffered=True) as process:
        chunks = (bytes(1 << 20) for _ in range(20))
        assert exchange(cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout), chunks) == b"enough\n"
    assert process.returncode == 3


def test_what_the_chunks_raise_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise KeyError("an image")

    with (
        pipes(ECHO, unbuffered=True) as process,
        pytest.raises(KeyError, match="an image"),
    ):
        exchange(cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout), broken())
    assert process.returncode == 0
