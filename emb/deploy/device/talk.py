"""The other side of the connection, as a program on a board sees it. Standard library alone; imported on boards only.

Every message is a line "emb: {json}", so that what a login shell prints does no harm. The other side must say
something every few seconds: whoever falls silent for SILENCE_S has gone.
"""

import json
import os
import select
import time

SILENCE_S = 30


class Refusal(Exception):
    """What the other side is told, with a reason and a remedy. refused: nothing was begun."""

    def __init__(self, what, *, why="", fix="", refused=False):
        super().__init__(what)
        self.message = {"what": what, "why": why, "fix": fix, "refused": refused}


class Gone(Exception):
    """The other side went or fell silent."""


class Client:
    """Whoever sent the request, on file descriptors 0 and 1."""

    def __init__(self):
        self._heard = time.monotonic()
        self._rest = b""

    def say(self, **message):
        """Send a message."""
        try:
            os.write(1, b"emb: " + json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Gone from error

    def read(self, most):
        """Up to `most` bytes, as soon as there are any."""
        if not self._rest:
            self._wait(SILENCE_S)
        data, self._rest = self._rest[:most], self._rest[most:]
        return data

    def line(self):
        """The next line, without its end."""
        while b"\n" not in self._rest:
            self._wait(SILENCE_S)
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def expect(self, word):
        """Wait for a line, over signs of life."""
        while (line := self.line()) != word:
            if line != b"alive":
                raise Gone

    def rest(self, seconds):
        """Let time pass, but notice when the other side goes. It sends nothing but signs of life meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([0], [], [], left)[0]:
                self._wait(0)
                self._rest = b""
            elif time.monotonic() - self._heard > SILENCE_S:
                raise Gone

    def _wait(self, seconds):
        if not select.select([0], [], [], seconds)[0]:
            raise Gone
        data = os.read(0, 1 << 16)
        if not data:
            raise Gone
        self._heard = time.monotonic()
        self._rest += data
