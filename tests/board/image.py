"""Makes the emulated board's kernel, initial file system and root disk, once, in a folder. Boots nothing.

The packages come from where this machine's own apt takes them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
SUITE = "bookworm"
USER = "pi"
DISK_BYTES = 3 * 1024**3

PACKAGES = (
    *("python3", "python3-venv", "libgomp1"),
    *("openssh-server", "ca-certificates", "iproute2", "procps"),
    *("systemd-sysv", "dbus-user-session", "libpam-systemd"),
)
MODULES = (
    *("virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net", "virtio_blk", "virtio-rng"),
    *("crc16", "crc32c_generic", "mbcache", "jbd2", "ext4"),
)
"""In the order of loading, each behind those that it needs."""

PROGRAMS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "qemu-aarch64-static": "qemu-user-static",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Each program that the board needs, and the Debian package that holds it."""


class BoardFailure(Exception):
    """The emulated board cannot be made or started, with the reason and the remedy in words."""


def require_programs() -> None:
    """Raises BoardFailure with the packages to install, if a program is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None})
    if missing:
        raise BoardFailure(f"the emulated board needs Debian packages: apt-get install {' '.join(missing)}")


def recipe_digest() -> str:
    """Changes with everything that decides the image, so that an outdated one is not used."""
    content = b"".join(path.read_bytes() for path in (Path(__file__), HERE / "init.sh", HERE / "customize.sh"))
    return hashlib.sha256(content).hexdigest()


def make(folder: Path) -> None:
    """Put `Image` (the kernel), `initrd.gz`, `root.qcow2`, `key`, `key.pub` and `known_host` into a new folder.

    Needs the network, and to be run by root. Raises BoardFailure with the last words of what
    failed.
    """
    require_programs()
    if os.geteuid() != 0:
        raise BoardFailure("the emulated board's disk is made as root: its files belong to many users")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
    try:
        with runnable_arm64():
            _make_root(work)
        _make_kernel_and_initrd(work)
        _make_disk(work)
        for name in ("root", "root.tar", "initrd", "disk.raw"):
            _remove(work / name)
        (work / "recipe").write_text(recipe_digest(), encoding="utf-8")
        _remove(folder)
        work.rename(folder)
    finally:
        _remove(work)


@contextmanager
def runnable_arm64() -> Iterator[None]:
    """arm64 programs run on this machine, by qemu-user; a registration that was not there before goes again."""
    registered = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
    if os.uname().machine == "aarch64" or registered.exists():
        yield
        return
    if not registered.parent.joinpath("register").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(registered.parent))
    line = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text(encoding="utf-8").strip()
    # The kernel takes the escapes of the magic as they stand in the file.
    (registered.parent / "register").write_text(line, encoding="utf-8")
    try:
        yield
    finally:
        registered.write_text("-1", encoding="utf-8")


def _make_root(work: Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "emulated-board", "-f", str(work / "key"))
    sources = os.environ.get("EMB_BOARD_SOURCES", "/etc/apt/sources.list.d/debian.sources")
    public_key = (work / "key.pub").read_text(encoding="utf-8").strip()
    _run(
        *("mmdebstrap", "--quiet", "--arch=arm64", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        f"--customize-hook=sh '{HERE / 'customize.sh'}' \"$1\"",
        *(SUITE, str(work / "root.tar")),
        *([sources] if Path(sources).is_file() else []),
        environment={"PUBLIC_KEY": public_key, "BOARD_USER": USER},
    )


def _make_kernel_and_initrd(work: Path) -> None:
    root = work / "root"
    root.mkdir()
    _run("tar", "-C", str(root), "--exclude=./dev/*", "-xf", str(work / "root.tar"))
    _run("cp", str(root / "etc/ssh/ssh_host_ed25519_key.pub"), str(work / "known_host"))
    kernel = root / "kernel"
    shutil.copyfile(next((kernel / "boot").glob("vmlinuz-*")), work / "Image")
    initrd = work / "initrd"
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (initrd / name).mkdir(parents=True)
    shutil.copy(kernel / "bin/busybox", initrd / "bin/busybox")
    shutil.copyfile(HERE / "init.sh", initrd / "init")
    (initrd / "init").chmod(0o755)
    for name in MODULES:
        found = next((kernel / "lib/modules").rglob(f"{name}.ko"), None)
        if found is None:
            raise BoardFailure(f"the kernel's package holds no module {name}")
        shutil.copyfile(found, initrd / "modules" / found.name)
    (initrd / "modules/order").write_text("".join(f"{name}.ko\n" for name in MODULES), encoding="utf-8")
    _run("rm", "-rf", str(kernel))
    names = "\n".join(str(path.relative_to(initrd)) for path in sorted(initrd.rglob("*")))
    archive = _run("cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", stdin=names.encode(), cwd=initrd)
    (work / "initrd.gz").write_bytes(gzip.compress(archive, compresslevel=6))


def _make_disk(work: Path) -> None:
    raw = work / "disk.raw"
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(work / "root"), str(raw), f"{DISK_BYTES // 1024}k")
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(work / "root.qcow2"))


def _run(
    *command: str,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    variables = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", **(environment or {})}
    done = subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, env=variables)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-12:]
        raise BoardFailure("\n".join([f"{command[0]} failed with exit code {done.returncode}", *words]))
    return done.stdout


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
