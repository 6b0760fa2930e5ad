"""Boots the emulated board, an arm64 Debian, and says how to reach it. Knows nothing of emb.

Every boot begins with the same clean disk: it writes into an overlay of the image, which is made once (see image.py).
The board's network ends at this machine: nothing of it reaches further, and only its ssh is reached from here.

    python tests/board/machine.py start | stop
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import image
from image import BoardFailure

HOST = "emulated-board"
BOOT_S = 90
# A board that was reset says nothing about the connections that it had.
_PATIENCE = ("-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A running board. folder: of this run, with its disk and its sockets.  port: of its ssh, on loopback."""

    folder: Path
    port: int

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`: knows the hosts "emulated-board" (user pi) and "emulated-board-root"."""
        return self.folder / "ssh_config"

    def ssh(self, command: str, *, user: str = image.USER, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a shell command on the board. Returns whatever came of it."""
        host = HOST if user == image.USER else f"{HOST}-{user}"
        return subprocess.run(
            ["ssh", "-F", str(self.ssh_config), *_PATIENCE, host, command],
            input=stdin,
            capture_output=True,
            timeout=600,
        )

    def check(self, command: str, *, user: str = image.USER, stdin: bytes = b"") -> str:
        """What the command wrote. Raises BoardFailure if it failed."""
        done = self.ssh(command, user=user, stdin=stdin)
        if done.returncode != 0:
            raise BoardFailure(f"{command!r} on the board: {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def monitor(self, command: str) -> None:
        """Give QEMU a command, such as system_reset: the power goes and comes back."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.folder / "monitor"))
            connection.recv(4096)
            connection.sendall(command.encode() + b"\n")
            time.sleep(0.2)

    def boot_id(self) -> str:
        """Another one after every boot."""
        return self.check("cat /proc/sys/kernel/random/boot_id").strip()

    def wait(self, *, other_than: str = "") -> None:
        """Until ssh answers, after a reset from another boot than `other_than`. Raises BoardFailure after 90 s."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if not _is_running(self.folder):
                break
            done = self.ssh("cat /proc/sys/kernel/random/boot_id")
            if done.returncode == 0 and done.stdout.decode().strip() != other_than:
                return
            time.sleep(0.5)
        log = self.folder / "serial.log"
        said = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        raise BoardFailure("\n".join([f"the emulated board does not answer after {BOOT_S} s; it said last:", *said]))


def default_folder() -> Path:
    """EMB_BOARD_DIR, or a folder in the user's cache."""
    if named := os.environ.get("EMB_BOARD_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emb-board"


def ready_image(folder: Path) -> Path:
    """The image in `folder`, made if it is not there or outdated, by one process at a time. Raises BoardFailure."""
    image.require_programs()
    path = folder / "image"
    recipe = path / "recipe"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not recipe.is_file() or recipe.read_text(encoding="utf-8") != image.recipe_digest():
            image.make(path)
    return path


def boot(made: Path, folder: Path) -> Machine:
    """Start a board with the image `made` and a clean disk; returns when ssh answers. Raises BoardFailure."""
    stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    disk = folder / "disk.qcow2"
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(made / "root.qcow2"), str(disk))
    machine = Machine(folder=folder, port=_free_port())
    (folder / "port").write_text(str(machine.port), encoding="utf-8")
    write_ssh_config(machine.ssh_config, made=made, port=machine.port)
    _run(
        *("nice", "-n", "5", "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "2048"),
        *("-accel", "tcg,thread=multi", "-kernel", str(made / "Image"), "-initrd", str(made / "initrd.gz")),
        *("-append", "console=ttyAMA0"),
        *("-drive", f"if=none,id=disk,format=qcow2,cache=unsafe,file={disk}", "-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{machine.port}-:22"),
        # Without an empty romfile it stops for the network card's boot ROM, which Debian packages apart.
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
        *("-display", "none", "-serial", f"file:{folder / 'serial.log'}"),
        *("-monitor", f"unix:{folder / 'monitor'},server,nowait", "-daemonize", "-pidfile", str(folder / "pid")),
    )
    machine.wait()
    return machine


def running(folder: Path) -> Machine | None:
    """The board that `boot` started there, if it still runs."""
    if not _is_running(folder):
        return None
    return Machine(folder=folder, port=int((folder / "port").read_text(encoding="utf-8")))


def stop(folder: Path) -> None:
    """End the board that runs there, if one does."""
    if not _is_running(folder):
        return
    pid = int((folder / "pid").read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while _is_running(folder) and time.monotonic() < deadline:
        time.sleep(0.1)


def write_ssh_config(path: Path, *, made: Path, port: int) -> None:
    """A configuration for ssh that knows the board at `port`, its key and ours, and is strict about both."""
    known = path.with_name("known_hosts")
    host_key = (made / "known_host").read_text(encoding="utf-8").split()[:2]
    known.write_text(f"{HOST} {' '.join(host_key)}\n", encoding="utf-8")
    path.write_text(
        f"""Host {HOST}
  User {image.USER}
Host {HOST}-root
  User root
Host {HOST} {HOST}-root
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias {HOST}
  IdentityFile {made / "key"}
  IdentitiesOnly yes
  UserKnownHostsFile {known}
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  LogLevel ERROR
""",
        encoding="utf-8",
    )


def _is_running(folder: Path) -> bool:
    try:
        pid = int((folder / "pid").read_text(encoding="utf-8"))
        # The number may be another process's by now.
        return str(folder / "disk.qcow2").encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BoardFailure(f"{command[0]} failed: {done.stderr.strip()}")


def main(arguments: list[str]) -> int:
    """`start` or `stop` the board of the default folder."""
    if arguments not in (["start"], ["stop"]):
        print("usage: machine.py start | stop", file=sys.stderr)
        return 2
    folder = default_folder()
    try:
        if arguments == ["stop"]:
            stop(folder / "run")
            return 0
        began = time.monotonic()
        machine = running(folder / "run")
        if machine is None:
            print("starting the emulated board; making it takes some minutes the first time", file=sys.stderr)
            machine = boot(ready_image(folder), folder / "run")
    except BoardFailure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print(f"the emulated board is ready after {time.monotonic() - began:.0f} s. Use it with:")
    print(f"  export EMB_SSH_CONFIG={machine.ssh_config}")
    print(f"  emb deploy BUILD --target rpi4 --host {HOST}")
    print(f"  ssh -F {machine.ssh_config} {HOST}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
