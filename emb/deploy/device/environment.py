"""Programs and virtual environments on a board. Standard library alone; imported on boards only."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time

from files import remove
from talk import Refusal

INSTALL_S = 3600
SELF_TEST_S = 3600
# The file that says that an environment is whole: it cannot be moved, so it cannot be renamed when it is.
MARK = "complete"


def run(client, command, *, seconds, what, fix="", **options):
    """Run a program while the other side is there. Raises Refusal with its last words if it fails."""
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True, **options
        )
        until = time.monotonic() + seconds
        try:
            while child.poll() is None:
                if time.monotonic() > until:
                    raise Refusal(what, why=f"it was not finished after {seconds} s", fix=fix)
                client.rest(0.2)
        finally:
            if child.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, 9)
                child.wait()
        if child.returncode:
            words.seek(0)
            raise Refusal(what, why=last_words(words.read()) or f"exit code {child.returncode}", fix=fix)


def last_words(said):
    """The end of what a program said; the password that a package index's address may hold is left out."""
    lines = [line.strip() for line in said.splitlines() if line.strip()][-6:]
    return re.sub(r"://[^/@\s]+@", "://***@", "; ".join(lines))


def is_complete(path):
    """The environment is whole, and its Python still runs: an upgrade of the system may have taken it away."""
    if not (path / MARK).is_file():
        return False
    trial = subprocess.run([path / "bin/python", "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return trial.returncode == 0


def install(client, path, *, requirements, wheels):
    """Make an environment. wheels: the folder to install from, None for the package index of the board's pip."""
    if path.exists():
        remove(path)
    path.parent.mkdir(exist_ok=True)
    run(
        client,
        [sys.executable, "-m", "venv", path],
        seconds=INSTALL_S,
        what="the environment for the runtime cannot be made",
        fix="run `python3 -m venv` on the board to see more",
    )
    command = [path / "bin/python", "-m", "pip", *(["--isolated"] if wheels else [])]
    command += ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "install", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", requirements]
    run(
        client,
        command + (["--no-index", "--find-links", wheels] if wheels else []),
        seconds=INSTALL_S,
        what="the runtime cannot be installed on the board",
        fix="" if wheels else "send the wheels too, if the board has no network: --vendor",
    )
    os.sync()
    (path / MARK).touch()
    os.sync()


def self_test(client, release):
    """Raises Refusal unless the release gives its golden outputs here, bit for bit."""
    run(
        client,
        [release / "venv/bin/python", "-I", "-B", release / "bundle/run.py", "self-test"],
        seconds=SELF_TEST_S,
        what="the self-test failed on the board; what was current still is",
        fix="bundle the build again; a board that computes other bits cannot run it",
    )
