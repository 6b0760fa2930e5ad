"""A bundle's files on a board: brought there, checked, switched. Standard library alone; imported on boards only."""

import contextlib
import hashlib
import json
import os
import shutil

from talk import Refusal

AGAIN = "deploy again; if it happens again, test the board's card"


def sha256(path):
    """In hex; "" if there is no file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def listed(bundle):
    """Name -> {"bytes", "sha256"} of every file, as bundle.json says."""
    return json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["files"]


def require_intact(client, bundle, digest):
    """Raises Refusal unless the files on the disk are those of the digest: no other, none missing, none changed."""
    if sha256(bundle / "bundle.json") != digest:
        raise Refusal("bundle.json is not what was bundled", why="its sha256 is not the release's name", fix=AGAIN)
    entries = listed(bundle)
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if not path.is_dir()} - {"bundle.json"}
    if found != set(entries):
        raise Refusal(f"{min(found ^ set(entries))} is missing or does not belong to the release", fix=AGAIN)
    for name, entry in entries.items():
        client.rest(0.001)
        if (bundle / name).is_symlink() or sha256(bundle / name) != entry["sha256"]:
            raise Refusal(
                f"{name} is not what was bundled", why="its sha256 differs from the one in bundle.json", fix=AGAIN
            )


def receive(client, folder, bundle_json, others):
    """Write the files that bundle.json lists: what other bundles here have as links to it, the rest as it is sent.

    Each comes on standard input as a line with its name, and its bytes. others: folders of bundles.
    """
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(bundle_json, encoding="utf-8")
    missing = json.loads(bundle_json)["files"]
    for name in missing:
        if name.startswith("/") or ".." in name.split("/"):
            raise Refusal(f"{name!r} leads out of the bundle")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for other in others:
        _link(client, other, folder, missing)
    client.say(send=sorted(missing))
    client.expect(b"files")
    while missing:
        name = client.line().decode()
        left = missing.pop(name)["bytes"]
        with (folder / name).open("xb") as file:
            while left:
                data = client.read(min(left, 1 << 16))
                file.write(data)
                left -= len(data)
        (folder / name).chmod(0o755 if name == "run.py" else 0o644)
        sync(folder / name)
    for path in (folder / "bundle.json", *(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync(path)


def _link(client, other, folder, missing):
    """Take what `other` has off `missing`: the wheels are most of a bundle, and seldom change."""
    with contextlib.suppress(OSError, ValueError):
        known = listed(other)
        for name in [name for name, entry in missing.items() if known.get(name) == entry]:
            client.rest(0.001)
            if sha256(other / name) == missing[name]["sha256"]:
                os.link(other / name, folder / name, follow_symlinks=False)
                del missing[name]


def remove(path):
    """Remove a folder; under another name first, so that half of it is never taken for a whole."""
    doomed = path if path.name.endswith(".partial") else path.with_name(f"{path.name}.partial")
    if doomed != path:
        path.rename(doomed)
    shutil.rmtree(doomed)


def switch(link, target):
    """Make `link` lead to `target`, in one rename that outlives a loss of power."""
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    sync(link.parent)


def write(path, text, *, mode=0o644):
    """Write a small file whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    sync(new)
    new.replace(path)


def sync(path):
    """Have the disk hold a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
