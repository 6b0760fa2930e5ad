"""What emb does on a board: releases, and the switch between them. Sent there over ssh with every request.

Standard library alone, Python 3.9 or newer; imported on boards only. Standard input holds one line with a request, then
what the request needs.

    ~/emb/lock                            held while something changes here
    ~/emb/venvs/<key>/                    an environment, whole once it holds the file `complete`
    ~/emb/<name>/run                      runs the current release: run classify photo.png
    ~/emb/<name>/current                  a link into releases/, replaced in one rename
    ~/emb/<name>/releases/<digest>/       bundle/, venv (a link), release.json
    ~/emb/<name>/releases/<digest>.partial   not finished; removed by whoever deploys next

The lock is the kernel's (flock): it goes with the process, however that ends. When the other side falls silent or goes,
the process ends and leaves what is current as it was.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import sys
import time
from pathlib import Path

from environment import MARK, install, is_complete, run, self_test
from files import receive, remove, require_intact, switch, sync, write
from talk import Client, Gone, Refusal

LOCK_WAIT_S = 1800
SPARE_BYTES = 16 * 1024**2
FIRST_SANE_CLOCK_S = 1_600_000_000

RUN = """#!/bin/sh
# Runs the current release, the whole of it even if another becomes current meanwhile.
release=$(readlink -f "$(dirname "$(readlink -f "$0")")/current") || exit 1
exec "$release/venv/bin/python" -B "$release/bundle/run.py" "$@"
"""

SOCKET = """[Unit]
Description={name}, deployed by emb

[Socket]
ListenStream=%t/emb-{name}.sock
SocketMode=0600
Accept=yes
MaxConnections={connections}

[Install]
WantedBy=sockets.target
"""

SERVICE = """[Unit]
Description={name}, deployed by emb, for one connection
CollectMode=inactive-or-failed

[Service]
ExecStart=%h/emb/{name}/run predict
StandardInput=socket
StandardOutput=socket
StandardError=journal
UMask=0022
NoNewPrivileges=yes
"""


class Board:
    """The files of emb below the user's home. client: who asked."""

    def __init__(self, client):
        self.client = client
        self.root = Path.home() / "emb"

    def release(self, name, digest):
        """The folder of a release."""
        return self.root / name / "releases" / digest

    def environment(self, key):
        """The folder of an environment."""
        return self.root / "venvs" / key

    def current(self, name):
        """The digest of what runs now, or ""."""
        try:
            return (self.root / name / "current").readlink().name
        except OSError:
            return ""

    def names(self):
        """Of all that is deployed here."""
        return sorted(path.parent.name for path in self.root.glob("*/releases"))

    def finished(self, name):
        """Digests of the whole releases, the one that was made current last at the end."""
        found = [path for path in (self.root / name / "releases").glob("*") if (path / "release.json").is_file()]
        digests = [path.name for path in found if not path.name.endswith(".partial")]
        return sorted(digests, key=lambda digest: self.note(name, digest)["sequence"])

    def note(self, name, digest):
        """What is kept about a release: its place in the sequence, what it replaced, its environment."""
        return json.loads((self.release(name, digest) / "release.json").read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def locked(self):
        """Alone on this board. Waits for another deploy, which ends itself if nobody waits for it any more."""
        self.root.mkdir(exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            until = time.monotonic() + LOCK_WAIT_S
            is_told = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise Refusal("another deploy holds this board", fix="try again when it has finished") from None
                if not is_told:
                    self.client.say(step="waiting for another deploy on this board")
                    is_told = True
                self.client.rest(0.5)
            yield

    @contextlib.contextmanager
    def cleaned(self):
        """Nothing half-made is there before, nor after a failure: it may be what fills the disk."""
        self.clean()
        try:
            yield
        except BaseException:
            self.clean()
            raise

    def clean(self):
        """Remove what an interrupted deploy left."""
        for path in self.root.glob("*/releases/*.partial"):
            remove(path)
        for pattern in ("*/*.new", "*/releases/*/*.new"):
            for path in self.root.glob(pattern):
                path.unlink()
        for path in (self.root / "venvs").glob("*"):
            if not (path / MARK).is_file() or path.name.endswith(".partial"):
                remove(path)

    def is_whole(self, name, digest):
        """The release is here with every byte of it."""
        folder = self.release(name, digest)
        try:
            require_intact(self.client, folder / "bundle", digest)
        except (Refusal, ValueError, OSError):
            return False
        return (folder / "release.json").is_file()


def deploy(board, request):
    """Bring a bundle here, prove that it works, make it current."""
    name, digest, key = request["name"], request["digest"], request["environment"]["key"]
    with board.locked(), board.cleaned():
        has_release = board.is_whole(name, digest)
        has_environment = is_complete(board.environment(key))
        require_room(board, request, has_release=has_release, has_environment=has_environment)
        release = board.release(name, digest if has_release else f"{digest}.partial")
        bundle = release / "bundle"
        if not has_release:
            others = sorted(board.root.glob("*/releases/*/bundle"))
            receive(board.client, bundle, request["bundle_json"], others)
            board.client.say(step="checking the copy")
            require_intact(board.client, bundle, digest)
        if not has_environment:
            board.client.say(step="installing the runtime into a new environment")
            wheels = request["environment"]["wheels"]
            install(
                board.client,
                board.environment(key),
                requirements=bundle / request["environment"]["requirements"],
                wheels=bundle / wheels if wheels else None,
            )
        # A release that is here may have run on another Python.
        if not (release / "venv").is_symlink() or (release / "venv").readlink().name != key:
            switch(release / "venv", f"../../../venvs/{key}")
        board.client.say(step="self-test")
        self_test(board.client, release)
        before = board.current(name)
        write(board.root / name / "run", RUN, mode=0o755)
        make_current(board, name, digest, release, before=before)
        if request["service"]:
            start_service(board, name)
        board.client.say(done={"digest": digest, "replaced": "" if before == digest else before})


def require_room(board, request, *, has_release, has_environment):
    """Raises Refusal before anything is copied."""
    environment = request["environment"]
    need = SPARE_BYTES
    need += 0 if has_release else sum(entry["bytes"] for entry in json.loads(request["bundle_json"])["files"].values())
    need += 0 if has_environment else environment["bytes"]
    state = os.statvfs(board.root)
    free = state.f_bavail * state.f_frsize
    if free < need:
        what = "the copy" if has_environment else "the copy and the runtime's environment"
        raise Refusal(
            f"the board has no room: {need:,} bytes are needed, {free:,} are free",
            why=f"for {what}, with 16 MiB to spare",
            fix="emb deploy --prune removes old releases",
            refused=True,
        )
    if not has_environment and not environment["wheels"] and time.time() < FIRST_SANE_CLOCK_S:
        raise Refusal(
            "the board cannot fetch the runtime: its clock is wrong",
            why=f"it says {time.strftime('%Y-%m-%d', time.gmtime())}, when no certificate of today is valid",
            fix="set the clock, or send the wheels too: --vendor",
            refused=True,
        )


def make_current(board, name, digest, release, *, before):
    """Give the release its name and switch to it."""
    final = board.release(name, digest)
    known = board.note(name, digest)["replaced"] if (final / "release.json").is_file() else ""
    note = {
        "sequence": 1 + max((board.note(name, other)["sequence"] for other in board.finished(name)), default=0),
        "replaced": known if before == digest else before,
        "environment": (release / "venv").readlink().name,
        "bytes": sum(path.stat().st_size for path in (release / "bundle").rglob("*") if path.is_file()),
        "model": json.loads((release / "bundle/bundle.json").read_text(encoding="utf-8"))["model"],
    }
    ask_to_go_on(board)
    write(release / "release.json", json.dumps(note, indent=2) + "\n")
    sync(release)
    if release != final:
        if final.exists():  # with damaged files, or it would not have been brought again
            final.rename(final.with_name(f"{digest}.damaged.partial"))
        release.rename(final)
        sync(final.parent)
    switch(board.root / name / "current", f"releases/{digest}")
    board.clean()


def ask_to_go_on(board):
    """The last moment at which the other side may have gone."""
    board.client.say(ready=True)
    board.client.expect(b"go")


def rollback(board, request):
    """Make the release current that the current one replaced."""
    name = request["name"]
    with board.locked():
        now = board.current(name)
        if not now:
            raise Refusal(f"no release of {name} is on this board", fix="emb deploy --list shows what is", refused=True)
        before = board.note(name, now)["replaced"]
        if not before or not (board.release(name, before) / "release.json").is_file():
            raise Refusal(
                f"there is no release of {name} to go back to",
                why=f"{now[:12]} replaced {f'{before[:12]}, which was pruned' if before else 'none'}",
                fix="emb deploy --list shows what is on the board; deploy the wanted build again",
                refused=True,
            )
        require_intact(board.client, board.release(name, before) / "bundle", before)
        board.client.say(step="self-test")
        self_test(board.client, board.release(name, before))
        ask_to_go_on(board)
        switch(board.root / name / "current", f"releases/{before}")
        board.client.say(done={"name": name, "digest": before, "replaced": now})


def listing(board, request):
    """Everything that is deployed here."""
    found = []
    for name in board.names():
        now = board.current(name)
        for digest in board.finished(name):
            note = board.note(name, digest)
            kept = {key: note[key] for key in ("replaced", "bytes", "model")}
            found.append({"name": name, "digest": digest, "current": digest == now, **kept})
    board.client.say(done={"releases": found})


def prune(board, request):
    """Remove releases except the latest ones, what is current and what it replaced; and environments without a use."""
    removed = []
    with board.locked():
        board.clean()
        for name in [request["name"]] if request["name"] else board.names():
            now = board.current(name)
            kept = {now, *board.finished(name)[-request["keep"] :]}
            if now:
                kept.add(board.note(name, now)["replaced"])
            for digest in board.finished(name):
                if digest not in kept:
                    remove(board.release(name, digest))
                    removed.append({"name": name, "digest": digest})
        used = {board.note(name, digest)["environment"] for name in board.names() for digest in board.finished(name)}
        for path in sorted((board.root / "venvs").glob("*")):
            if path.name not in used:
                remove(path)
        board.client.say(done={"removed": removed})


def start_service(board, name):
    """A socket of the user's systemd that hands each connection to the release that is current then."""
    units = Path.home() / ".config/systemd/user"
    units.mkdir(parents=True, exist_ok=True)
    unit = f"emb-{name.replace('+', '_')}"  # systemd takes no "+" in a unit's name
    write(units / f"{unit}.socket", SOCKET.format(name=name, connections=os.cpu_count() or 1))
    write(units / f"{unit}@.service", SERVICE.format(name=name))
    for command in (["daemon-reload"], ["enable", "--now", f"{unit}.socket"]):
        run(
            board.client,
            ["systemctl", "--user", *command],
            seconds=60,
            what="the release is current, but systemd did not take its service",
            fix="look at `systemctl --user status` on the board",
            env={"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ},
        )
    if not Path("/var/lib/systemd/linger", os.environ.get("USER", "")).is_file():
        board.client.say(note="for the service to run from boot on, do once on the board: sudo loginctl enable-linger")


COMMANDS = {"deploy": deploy, "rollback": rollback, "list": listing, "prune": prune}


def main():
    """Do what the request says. Exit code 3 if nobody waits for an answer any more."""
    os.umask(0o022)
    client = Client()
    try:
        request = json.loads(client.line())
        if request["name"] and not re.fullmatch(r"(?!venvs$)[A-Za-z0-9_][A-Za-z0-9._+-]*", request["name"]):
            raise Refusal(f"{request['name']!r} cannot be the name of a release", refused=True)
        COMMANDS[request["command"]](Board(client), request)
    except Refusal as refusal:
        client.say(error=refusal.message)
    except (OSError, ValueError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        what = "the board's disk is full" if is_full else "the board failed"
        fix = "make room there; emb deploy --prune removes old releases" if is_full else ""
        client.say(error={"what": what, "why": str(error), "fix": fix, "refused": False})
    except Gone:
        sys.exit(3)
