"""Talks to a program through its two pipes. Knows neither the program nor where it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import IO


def exchange(stdin: IO[bytes], stdout: IO[bytes], chunks: Iterable[bytes]) -> bytes:
    """Everything that a program writes while it is given `chunks`, each of which may be larger than a pipe.

    Both go on at the same time, so that neither side waits for the other. Closes stdin. What a program that ends early
    leaves unread is dropped: its exit code says why. Whatever `chunks` raises is raised here.
    """
    raised: list[BaseException] = []

    def write() -> None:
        try:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    # An unbuffered pipe takes what fits into it.
                    rest = rest[stdin.write(rest) or 0 :]
            stdin.flush()
        except BrokenPipeError:
            pass
        except BaseException as error:
            raised.append(error)
        finally:
            with suppress(OSError):
                stdin.close()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    written = b"".join(iter(lambda: stdout.read(1 << 16), b""))
    writer.join()
    if raised:
        raise raised[0]
    return written
