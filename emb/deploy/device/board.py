"""What emb does on a board: releases, environments, the switch between them. Runs there, sent over ssh; stays nowhere.

Standard library alone, Python 3.9 or newer. Standard input holds this program, one line with a request, then what the
request needs; every message goes out as a line "emb: {json}", so that what a login shell prints does no harm.

    ~/emb/lock                            held while something changes here
    ~/emb/venvs/<key>/                    an environment, usable once it holds the file `complete`
    ~/emb/<name>/run                      runs the current release: run classify photo.jpg
    ~/emb/<name>/current                  a link into releases/, replaced in one rename
    ~/emb/<name>/releases/<digest>/       bundle/, venv (a link), release.json
    ~/emb/<name>/releases/<digest>.partial   not finished; removed by whoever deploys next

The other side must say something every few seconds. When it falls silent or goes, this program ends and leaves what
is current as it was. The lock is the kernel's (flock): it goes with the process, however that ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

SILENCE_S = 30
LOCK_WAIT_S = 600
SELF_TEST_S = 1800
INSTALL_S = 3600
SPARE_BYTES = 16 * 1024**2
FIRST_SANE_CLOCK_S = 1_600_000_000

RUN = """#!/bin/sh
# Runs the current release, the whole of it even if another becomes current meanwhile.
release=$(readlink -f "$(dirname "$(readlink -f "$0")")/current") || exit 1
exec "$release/venv/bin/python" "$release/bundle/run.py" "$@"
"""

SOCKET = """[Unit]
Description=%(name)s, deployed by emb

[Socket]
ListenStream=%%t/emb-%(name)s.sock
SocketMode=0600
Accept=yes
MaxConnections=%(connections)d

[Install]
WantedBy=sockets.target
"""

SERVICE = """[Unit]
Description=%(name)s, deployed by emb, for one connection
CollectMode=inactive-or-failed

[Service]
ExecStart=%%h/emb/%(name)s/run predict
StandardInput=socket
StandardOutput=socket
StandardError=journal
UMask=0022
NoNewPrivileges=yes
"""


class Refusal(Exception):
    """Something to tell the other side, with a reason and a remedy. refused: nothing was wrong with the board."""

    def __init__(self, what, *, why="", fix="", refused=False):
        super().__init__(what)
        self.message = {"what": what, "why": why, "fix": fix, "refused": refused}


class Gone(Exception):
    """The other side went or fell silent."""


class Client:
    """The other side of the connection, on file descriptors 0 and 1."""

    def __init__(self):
        self._heard = time.monotonic()
        self._rest = b""

    def say(self, **message):
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
            rest = self._rest
            self._rest = b""
            self._wait(SILENCE_S)
            self._rest = rest + self._rest
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


class Board:
    """The files of emb below the user's home. client: who asked."""

    def __init__(self, client):
        self.client = client
        self.root = Path.home() / "emb"

    def releases(self, name):
        return self.root / name / "releases"

    def current(self, name):
        """The digest of what runs now, or ""."""
        try:
            return os.path.basename(os.readlink(self.root / name / "current"))
        except OSError:
            return ""

    def names(self):
        return sorted(path.parent.name for path in self.root.glob("*/releases"))

    def finished(self, name):
        """Digests of all releases, the latest made current last."""
        found = [path.name for path in self.releases(name).glob("*") if (path / "release.json").is_file()]
        found = [digest for digest in found if not digest.endswith(".partial")]
        return sorted(found, key=lambda digest: self.note(name, digest)["sequence"])

    def note(self, name, digest):
        """What is kept about a release: its place in the sequence, what it replaced, its environment."""
        return json.loads((self.releases(name) / digest / "release.json").read_text())

    @contextlib.contextmanager
    def locked(self):
        """Alone on this board. Waits for another deploy, which cannot last: a silent one ends itself."""
        self.root.mkdir(exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            until = time.monotonic() + LOCK_WAIT_S
            told = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise Refusal(
                            "another deploy holds this board", fix="wait until it has finished, and try again"
                        ) from None
                    if not told:
                        self.client.say(step="waiting for another deploy on this board")
                        told = True
                    self.client.rest(0.5)
            yield

    def run(self, command, *, seconds, what, fix="", **options):
        """Run a program while the other side is there. Raises Refusal with its last words if it fails."""
        with contextlib.ExitStack() as stack:
            words = stack.enter_context((self.root / "last-output").open("w+"))
            options = {"stdin": subprocess.DEVNULL, "stdout": words, "stderr": words, **options}
            child = subprocess.Popen(command, start_new_session=True, **options)
            until = time.monotonic() + seconds
            try:
                while child.poll() is None:
                    if time.monotonic() > until:
                        raise Refusal(what, why=f"not finished after {seconds} s", fix=fix)
                    self.client.rest(0.2)
            finally:
                if child.poll() is None:
                    with contextlib.suppress(OSError):
                        os.killpg(child.pid, 9)
                    child.wait()
            if child.returncode:
                words.seek(0)
                said = [line.rstrip() for line in words.read().splitlines() if line.strip()][-8:]
                raise Refusal(what, why="; ".join(said) or f"exit code {child.returncode}", fix=fix)


def deploy(board, request):
    """Bring a bundle here, prove that it works, make it current."""
    name, digest = request["name"], request["digest"]
    releases = board.releases(name)
    with board.locked():
        releases.mkdir(parents=True, exist_ok=True)
        clean(board)
        key = request["environment"]["key"]
        has_release = is_whole(board, name, digest)
        has_environment = is_complete(board, key)
        require_room(board, request, has_release=has_release, has_environment=has_environment)
        release = releases / digest
        if has_release:
            board.client.say(send=False)
            board.client.expect(b"files")
        else:
            release = releases / f"{digest}.partial"
            board.client.say(send=True)
            board.client.expect(b"files")
            receive(board, release / "bundle", request["bundle_json"])
            board.client.say(step="checking the copy")
            require_intact(board, release / "bundle", digest)
        if not has_environment:
            board.client.say(step="installing the runtime into a new environment")
            install(board, key, release / "bundle", request["environment"])
        if not has_release:
            os.symlink(f"../../../venvs/{key}", release / "venv")
        board.client.say(step="self-test")
        self_test(board, release)
        before = board.current(name)
        finish(board, name, digest, release, before=before)
        write_launcher(board, name)
        if request["service"]:
            start_service(board, name)
        board.client.say(done={"digest": digest, "replaced": before if before != digest else "", "copied": not has_release})


def rollback(board, request):
    """Make the release current that the current one replaced."""
    name = request["name"]
    with board.locked():
        now = board.current(name)
        if not now:
            raise Refusal(f"no release of {name} is on this board", fix="deploy one first", refused=True)
        before = board.note(name, now)["replaced"]
        if not before or not (board.releases(name) / before / "release.json").is_file():
            raise Refusal(
                f"there is no release of {name} to go back to",
                why=f"{now[:12]} replaced {f'{before[:12]}, which was pruned' if before else 'none'}",
                fix="emb deploy --list shows what is on the board; deploy the wanted build again",
                refused=True,
            )
        release = board.releases(name) / before
        require_intact(board, release / "bundle", before)
        board.client.say(step="self-test")
        self_test(board, release)
        ask_to_go_on(board)
        switch(board, name, before)
        board.client.say(done={"digest": before, "replaced": now})


def listing(board, request):
    """Everything that is deployed here."""
    found = []
    for name in board.names():
        now = board.current(name)
        for digest in board.finished(name):
            note = board.note(name, digest)
            found.append(
                {
                    "name": name,
                    "digest": digest,
                    "current": digest == now,
                    "replaced": note["replaced"],
                    "bytes": note["bytes"],
                    "model": note["model"],
                }
            )
    board.client.say(done={"releases": found})


def prune(board, request):
    """Remove releases except the latest ones, what is current and what it replaced; and environments without a use."""
    removed = []
    with board.locked():
        clean(board)
        for name in [request["name"]] if request["name"] else board.names():
            now = board.current(name)
            kept = {now, *board.finished(name)[-request["keep"] :]}
            if now:
                kept.add(board.note(name, now)["replaced"])
            for digest in board.finished(name):
                if digest not in kept:
                    remove(board.releases(name) / digest)
                    removed.append({"name": name, "digest": digest})
        used = {board.note(name, digest)["environment"] for name in board.names() for digest in board.finished(name)}
        for path in sorted((board.root / "venvs").glob("*")):
            if path.name not in used:
                remove(path)
        board.client.say(done={"removed": removed})


def clean(board):
    """Remove what an interrupted deploy left."""
    for path in board.root.glob("*/releases/*.partial"):
        remove(path)
    for path in board.root.glob("*/*.new"):
        path.unlink()
    for path in (board.root / "venvs").glob("*"):
        if not (path / "complete").is_file():
            remove(path)


def remove(path):
    """Remove a folder; under another name first, so that half of it is never taken for a release."""
    doomed = path if path.name.endswith(".partial") else path.with_name(f"{path.name}.partial")
    if doomed != path:
        (path / "complete").unlink(missing_ok=True)
        os.rename(path, doomed)
    shutil.rmtree(doomed)


def require_room(board, request, *, has_release, has_environment):
    """Raises Refusal before anything is copied."""
    environment = request["environment"]
    need = SPARE_BYTES
    files = json.loads(request["bundle_json"])["files"].values()
    need += 0 if has_release else sum(entry["bytes"] for entry in files)
    need += 0 if has_environment else environment["bytes"]
    state = os.statvfs(board.root)
    free = state.f_bavail * state.f_frsize
    if free < need:
        raise Refusal(
            f"the board has no room: {need:,} bytes are needed, {free:,} are free",
            why="the copy, the runtime's environment and 16 MiB to spare" if not has_environment else "the copy",
            fix="emb deploy --prune removes old releases",
            refused=True,
        )
    if not has_environment and not environment["wheels"] and time.time() < FIRST_SANE_CLOCK_S:
        raise Refusal(
            "the board cannot fetch the runtime: its clock is wrong",
            why=f"it says {time.strftime('%Y-%m-%d', time.gmtime())}, when no certificate of today is valid",
            fix="set the clock, or bundle the wheels too: emb bundle --vendor",
            refused=True,
        )


def receive(board, folder, bundle_json):
    """Write the files that bundle.json lists; they come on standard input in its order, one behind the other."""
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(bundle_json, encoding="utf-8")
    for name, entry in json.loads(bundle_json)["files"].items():
        if name.startswith("/") or ".." in name.split("/"):
            raise Refusal(f"{name!r} leads out of the bundle")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        left = entry["bytes"]
        with path.open("xb") as file:
            while left:
                data = board.client.read(min(left, 1 << 16))
                file.write(data)
                left -= len(data)
    os.sync()


def require_intact(board, bundle, digest):
    """Raises Refusal unless the files on the disk are those of the digest: no other, none missing, none changed."""
    if sha256(bundle / "bundle.json") != digest:
        raise Refusal("bundle.json is not what was sent", fix="deploy again; if it happens again, test the card")
    stated = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["files"]
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if not path.is_dir()} - {"bundle.json"}
    if found != set(stated):
        raise Refusal(f"{min(found ^ set(stated))} is missing or does not belong to the release", fix="deploy again")
    for path, entry in stated.items():
        board.client.rest(0.001)
        if (bundle / path).is_symlink() or sha256(bundle / path) != entry["sha256"]:
            raise Refusal(
                f"{path} is not what was bundled",
                why="its sha256 differs from the one in bundle.json",
                fix="deploy again; if it happens again, bundle again and test the board's card",
            )


def sha256(path):
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def is_whole(board, name, digest):
    """The release is here with every byte of it."""
    try:
        require_intact(board, board.releases(name) / digest / "bundle", digest)
    except (Refusal, ValueError, OSError):
        return False
    return (board.releases(name) / digest / "release.json").is_file()


def is_complete(board, key):
    """The environment is there, and its Python still runs: an upgrade of the system may have taken it away."""
    path = board.root / "venvs" / key
    if not (path / "complete").is_file():
        return False
    return subprocess.run([path / "bin/python", "-c", ""], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def install(board, key, bundle, environment):
    """Make the environment. It is there once `complete` is: it cannot be moved, so it cannot be renamed when done."""
    path = board.root / "venvs" / key
    if path.exists():
        remove(path)
    path.parent.mkdir(exist_ok=True)
    board.run(
        [sys.executable, "-m", "venv", str(path)],
        seconds=INSTALL_S,
        what="the environment for the runtime cannot be made",
        fix="run `python3 -m venv` on the board to see why",
    )
    offline = ["--isolated", "--no-index", "--find-links", str(bundle / environment["wheels"])]
    command = [path / "bin/python", "-m", "pip"]
    command += ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "install", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(bundle / environment["requirements"])]
    board.run(
        command + (offline if environment["wheels"] else []),
        seconds=INSTALL_S,
        what="the runtime cannot be installed on the board",
        fix="" if environment["wheels"] else "bundle the wheels too, if the board has no network: emb bundle --vendor",
    )
    os.sync()
    (path / "complete").write_text("")
    os.sync()


def self_test(board, release):
    """Raises Refusal unless the release gives its golden outputs here, bit for bit."""
    board.run(
        [release / "venv/bin/python", "-I", "-B", release / "bundle/run.py", "self-test"],
        seconds=SELF_TEST_S,
        what="the self-test failed on the board; what was current still is",
        fix="run it by hand to see more; a board that computes other bits cannot run this bundle",
        cwd=release / "bundle",
    )


def ask_to_go_on(board):
    """The last moment at which the other side may have gone."""
    board.client.say(ready=True)
    board.client.expect(b"go")


def finish(board, name, digest, release, *, before):
    """Give the release its name and make it current."""
    final = board.releases(name) / digest
    sequence = 1 + max((board.note(name, other)["sequence"] for other in board.finished(name)), default=0)
    stated = json.loads((release / "bundle/bundle.json").read_text())
    replaced = before
    if before == digest:
        replaced = board.note(name, digest)["replaced"] if (final / "release.json").is_file() else ""
    note = {
        "sequence": sequence,
        "replaced": replaced,
        "environment": os.path.basename(os.readlink(release / "venv")),
        "bytes": sum(path.stat().st_size for path in (release / "bundle").rglob("*") if path.is_file()),
        "model": stated["model"],
    }
    ask_to_go_on(board)
    replace_text(release / "release.json", json.dumps(note, indent=2) + "\n")
    os.sync()
    if release != final:
        if final.exists():  # one with damaged files
            os.rename(final, final.with_name(f"{digest}.damaged.partial"))
        os.rename(release, final)
    switch(board, name, digest)
    clean(board)


def switch(board, name, digest):
    """The one rename that matters."""
    link = board.root / name / "current.new"
    link.unlink(missing_ok=True)
    os.symlink(f"releases/{digest}", link)
    sync_folder(board.releases(name))
    os.replace(link, board.root / name / "current")
    sync_folder(board.root / name)


def replace_text(path, text, *, mode=0o644):
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    os.replace(new, path)


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_launcher(board, name):
    replace_text(board.root / name / "run", RUN, mode=0o755)


def start_service(board, name):
    """A socket of the user's systemd that hands each connection to the release that is current then."""
    units = Path.home() / ".config/systemd/user"
    units.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "connections": os.cpu_count() or 1}
    replace_text(units / f"emb-{name}.socket", SOCKET % values)
    replace_text(units / f"emb-{name}@.service", SERVICE % values)
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    for command in (["daemon-reload"], ["enable", "--now", f"emb-{name}.socket"]):
        board.run(
            ["systemctl", "--user", *command],
            seconds=60,
            what="the release is current, but systemd did not take its service",
            fix="look at `systemctl --user status` on the board",
            env=environment,
        )
    if not Path("/var/lib/systemd/linger", Path.home().name).exists():
        board.client.say(note=f"to start the service at boot, run once on the board: sudo loginctl enable-linger")


COMMANDS = {"deploy": deploy, "rollback": rollback, "list": listing, "prune": prune}


def main():
    os.umask(0o022)
    client = Client()
    try:
        request = json.loads(client.line())
        if request.get("name") and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", request["name"]):
            raise Refusal(f"{request['name']!r} is no name for a model", refused=True)
        COMMANDS[request["command"]](Board(client), request)
    except Refusal as refusal:
        client.say(error=refusal.message)
    except OSError as error:
        client.say(error={"what": f"the board failed: {error}", "why": "", "fix": "", "refused": False})
    except Gone:
        sys.exit(3)


main()
