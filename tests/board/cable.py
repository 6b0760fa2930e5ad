"""The network cable between ssh and the board, for tests to pull it out. Knows bytes, nothing of what they mean."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Cable:
    """Forwards connections on a port of its own to the board's; acts when so many bytes have gone to the board.

    At the byte that was named it holds the stream, acts, and goes on: whatever the action does happens there.
    """

    def __init__(self, board_port: int) -> None:
        self._board_port = board_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._sent_bytes = 0
        self._at: int | None = None
        self._action: Callable[[], None] | None = None
        self._is_silent = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def act_at(self, count: int, action: Callable[[], None]) -> None:
        """Call `action` once when `count` more bytes have gone to the board."""
        with self._lock:
            self._sent_bytes, self._at, self._action = 0, count, action

    @property
    def sent_bytes(self) -> int:
        """Since the last `act_at`."""
        return self._sent_bytes

    def cut(self) -> None:
        """Both ends notice at once."""
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):  # it may be gone on its own
                        end.shutdown(socket.SHUT_RDWR)
                    end.close()
            self._pairs.clear()

    def pull(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._is_silent.set()

    def mend(self) -> None:
        """As new: old connections are gone, new ones work."""
        self.cut()
        self._is_silent.clear()
        with self._lock:
            self._at = self._action = None

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._is_silent.is_set():
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._board_port))
                with self._lock:
                    self._pairs.append((near, far))
                threading.Thread(target=self._forward, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, to_board: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                for part in self._parts(data) if to_board else (data,):
                    if self._is_silent.is_set():
                        return
                    target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def _parts(self, data: bytes):
        with self._lock:
            at, action, before = self._at, self._action, self._sent_bytes
            self._sent_bytes += len(data)
            is_now = at is not None and action is not None and before + len(data) >= at
            if is_now:
                self._at = self._action = None
        if not is_now:
            yield data
            return
        yield data[: at - before]
        action()
        yield data[at - before :]
