"""Runs programs on a board through the user's own OpenSSH client. Knows no model and no release; handles no password.

Configuration, agent, known hosts and the strictness about them are the user's. Nothing here can accept a host key.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from emb.errors import BoardError, SpecError

# An alias, a name or an address, with a user before it or, after "ssh://", a port behind it.
_USER, _NAME, _ADDRESS = r"[A-Za-z0-9_][\w.+-]*@", r"[A-Za-z0-9_][\w.-]*", r"[0-9A-Fa-f:.]+(%\w+)?"
_HOST = re.compile(rf"({_USER})?({_NAME}|{_ADDRESS})|ssh://({_USER})?({_NAME}|\[{_ADDRESS}\])(:[0-9]+)?", re.ASCII)

_CONNECT_S = 20
# The client gives up a silent connection after 30 s.
_ALIVE_EVERY_S, _ALIVE_COUNT = 10, 3
_SSH_FAILED = 255
# Whatever a login shell prints comes before this line.
_MARK = b"emb-begins-here\n"
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A program that runs on a board. stdin, stdout: its own, unbuffered."""

    host: str
    stdin: IO[bytes]
    stdout: IO[bytes]
    _process: subprocess.Popen[bytes] = field(repr=False)
    _stderr: IO[bytes] = field(repr=False)

    def readable(self, timeout_s: float) -> bool:
        """Whether output, or its end, comes within `timeout_s`."""
        return bool(select.select([self.stdout], [], [], timeout_s)[0])

    def read(self, most: int = _CHUNK) -> bytes:
        """Output as soon as there is any; b"" at its end."""
        return os.read(self.stdout.fileno(), most)

    def finish(self) -> int:
        """Wait for the program; its exit code. Raises BoardError if it was ssh that failed."""
        code = self._process.wait()
        if code == _SSH_FAILED:
            raise failure_of(self.host, self.words())
        return code

    def words(self) -> str:
        """What was said on the standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """host: what `ssh` is given: an alias of the user's configuration, or [user@]name, or ssh://[user@]name[:port].

    config: a file to use instead of the user's configuration.
    Raises SpecError for a host that is none.
    """

    host: str
    config: Path | None = None

    def __post_init__(self) -> None:
        require_host(self.host)
        if self.config is not None and not self.config.is_file():
            raise SpecError(f"there is no ssh configuration {self.config}", fix="check --ssh-config or EMB_SSH_CONFIG")

    @contextmanager
    def open(self, arguments: Sequence[str]) -> Iterator[Session]:
        """Start a program on the board. arguments: its name and its arguments, whatever characters they hold.

        Raises BoardError if the board cannot be reached, or if `ssh` is missing.
        """
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    self.command(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
                )
            except FileNotFoundError as error:
                raise BoardError("there is no ssh on this machine", fix="install the OpenSSH client") from error
            assert process.stdin is not None
            assert process.stdout is not None
            session = Session(
                host=self.host, stdin=process.stdin, stdout=process.stdout, _process=process, _stderr=stderr
            )
            try:
                self._skip_greetings(session)
                yield session
            finally:
                for stream in (process.stdin, process.stdout):
                    stream.close()
                if process.poll() is None:
                    process.terminate()
                process.wait()

    def run(self, arguments: Sequence[str], *, stdin: bytes = b"") -> bytes:
        """What a program writes that gets `stdin`, all of it small. Raises BoardError if it or ssh fails."""
        with self.open(arguments) as session:
            session.stdin.write(stdin)
            session.stdin.close()
            written = b"".join(iter(session.read, b""))
            if code := session.finish():
                said = session.words()
                raise BoardError(f"{arguments[0]} failed on {self.host}", why=said or f"exit code {code}")
            return written

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The ssh that runs a program. The words after the host are the one thing that a shell on the board reads."""
        remote = shlex.join(["sh", "-c", f'umask 022; echo {_MARK.decode().strip()}; exec "$@"', "sh", *arguments])
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": _CONNECT_S,
            "ServerAliveInterval": _ALIVE_EVERY_S,
            "ServerAliveCountMax": _ALIVE_COUNT,
            # A connection of the user's own may be shared, but none is left behind.
            "ControlPersist": "no",
            "RequestTTY": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
        }
        config = ["-F", str(self.config)] if self.config else []
        set_options = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *config, *set_options, "--", self.host, remote]

    def _skip_greetings(self, session: Session) -> None:
        seen = b""
        while not seen.endswith(_MARK):
            byte = session.read(1)
            if not byte:
                session.finish()
                raise BoardError(
                    f"{self.host} runs no commands over ssh", why=session.words(), fix=f"try it: ssh {self.host} uname"
                )
            seen += byte


def require_host(host: str) -> None:
    """Raises SpecError for what is no host: options, spaces, anything that a shell would read."""
    if not _HOST.fullmatch(host):
        raise SpecError(
            f"{host!r} is no host",
            fix="give an alias of your ssh configuration, user@name, or ssh://user@name:port",
        )


def failure_of(host: str, words: str) -> BoardError:
    """Why ssh failed, as the user can mend it. words: what ssh said."""
    last = words.splitlines()[-1] if words else "ssh said nothing"
    what = f"cannot reach {host} by ssh"
    if "host key" in words.lower() or "REMOTE HOST IDENTIFICATION" in words:
        changed = "REMOTE HOST IDENTIFICATION" in words
        return BoardError(
            f"{host} is not trusted: its host key {'has changed' if changed else 'is not known'}",
            why=last,
            fix="compare its fingerprint, then "
            + (f"ssh-keygen -R {host}" if changed else f"connect once by hand: ssh {host}"),
        )
    if "Permission denied" in words or "Too many authentication failures" in words:
        return BoardError(what, why=last, fix=f"emb asks for no password; give it a key: ssh-copy-id {host}")
    if "Could not resolve" in words:
        return BoardError(what, why=last, fix="check the name, or give the board's address")
    return BoardError(what, why=last, fix=f"check that the board is on and in reach: ssh {host}")


def parse_hosts(text: str, *, source: str) -> tuple[str, ...]:
    """The hosts of a file: one a line, comments after "#". Raises SpecError that names the line of what is none."""
    hosts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        host = line.partition("#")[0].strip()
        if not host:
            continue
        try:
            require_host(host)
        except SpecError as error:
            raise SpecError(f"{source}, line {number}: {error.what}", fix=error.fix) from error
        if host in hosts:
            raise SpecError(f"{source}, line {number}: {host} stands there twice", fix="remove one of the lines")
        hosts.append(host)
    if not hosts:
        raise SpecError(f"{source} names no host", fix="write one host on each line")
    return tuple(hosts)
