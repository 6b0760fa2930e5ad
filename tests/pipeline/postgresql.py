"""A real PostgreSQL server for tests: Debian's binaries, a cluster of its own in a temporary directory."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


class Postgresql:
    """A running server with one user and one database. Raises OSError or CalledProcessError if it cannot be started."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.password = secrets.token_hex(8)
        # Not below pytest's directory, which only its own user can enter.
        self.directory = Path(tempfile.mkdtemp(prefix="emb-postgresql-"))
        password = self.directory / "password"
        password.write_text(self.password)
        # The server refuses to run as root.
        self._user = _unprivileged() if os.getuid() == 0 else None
        if self._user:
            for path in (self.directory, password):
                shutil.chown(path, self._user)
        self._run("initdb", "-U", "emb", "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync", "-E", "UTF8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://emb:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def shown(self) -> str:
        return f"postgresql://emb@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.directory} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-l", str(self.directory / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str) -> None:
        # No pipe: the server would keep it open.
        with (self.directory.parent / f"{self.directory.name}.out").open("w+") as log:
            done = subprocess.run(
                [str(self._binaries / program), "-D", str(self.directory / "data"), *arguments],
                stdout=log,
                stderr=log,
                check=False,
                cwd=self.directory,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )
            log.seek(0)
            assert done.returncode == 0, log.read()
        Path(log.name).unlink()


def _unprivileged() -> str:
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def binaries() -> Path | None:
    """Where the newest server's programs are; None without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None
