"""One emulated board for all tests of this folder, two bundles of one name, and the command line as a user runs it.

`make test-board` runs them. The first run makes the board, for some minutes; each run boots it with a clean disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
# The tests' own modules lie beside them and belong to no package.
sys.path.insert(0, str(HERE))

import machine as machines  # noqa: E402
from cable import Cable  # noqa: E402

NAME = "lenet"
BUILD = ("build", "lenet", "--quantize", "int8", "--data", "digits", "--no-train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("board")


@dataclass(frozen=True)
class Emb:
    """The command line with a cache of its own. home: where it runs.  ssh_config: how it reaches the board."""

    home: Path
    ssh_config: Path

    def popen(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("EMB_")}
        own = {"EMB_CACHE_DIR": str(self.home / "cache"), "COLUMNS": "160", "EMB_SSH_CONFIG": str(self.ssh_config)}
        return subprocess.Popen(
            [sys.executable, "-c", "from emb.cli import main; main()", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env={**kept, **own, **environment},
        )

    def run(self, *arguments: str, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.popen(*arguments, **environment) as process:
            out, err = process.communicate(timeout=900)
        assert process.returncode == expect, out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", expect=expect).stdout)


@dataclass(frozen=True)
class Bundle:
    """A bundle's directory on this machine."""

    path: Path

    @property
    def digest(self) -> str:
        return hashlib.sha256((self.path / "bundle.json").read_bytes()).hexdigest()

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path / "bundle.json").read_text())

    @property
    def images(self) -> bytes:
        return _array_bytes(self.path / "golden/images.npy")

    @property
    def answers(self) -> bytes:
        """What the model must give for the golden images."""
        return _array_bytes(self.path / self.manifest["golden"][0]["file"])

    def variant(self, path: Path, **changes: Any) -> Bundle:
        """The same bundle with other files (name -> bytes) and other fields of its bundle.json."""
        files: dict[str, bytes] = changes.pop("files", {})
        path.mkdir()
        manifest = self.manifest
        for name in {*manifest["files"], *files}:
            content = files.get(name) or (self.path / name).read_bytes()
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
            manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for key, value in changes.items():
            manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
        (path / "bundle.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        return Bundle(path)


def _array_bytes(path: Path) -> bytes:
    import numpy as np

    return np.load(path, allow_pickle=False).tobytes()


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Machine]:
    """A board with a clean disk."""
    made = machines.ready_image(machines.default_folder())
    folder = tmp_path_factory.mktemp("board") / "run"
    try:
        yield machines.boot(made, folder)
    finally:
        machines.stop(folder)


@pytest.fixture(scope="session")
def emb(board: machines.Machine, tmp_path_factory: pytest.TempPathFactory) -> Emb:
    return Emb(tmp_path_factory.mktemp("emb"), board.ssh_config)


@pytest.fixture(scope="session")
def cable(board: machines.Machine) -> Iterator[Cable]:
    made = Cable(board.port)
    yield made
    made.close()


@pytest.fixture(scope="session")
def through_cable(emb: Emb, board: machines.Machine, cable: Cable, tmp_path_factory: pytest.TempPathFactory) -> Emb:
    """The command line, with the cable between it and the board."""
    config = tmp_path_factory.mktemp("cable") / "ssh_config"
    config.write_text(board.ssh_config.read_text().replace(f"Port {board.port}\n", f"Port {cable.port}\n"))
    return Emb(emb.home, config)


@pytest.fixture(scope="session")
def bundles(emb: Emb) -> tuple[Bundle, Bundle]:
    """Two models of one name, with the wheels: the board's network ends at this machine."""
    made = []
    for seed in ("1", "2"):
        build, place = f"{seed}/{NAME}", f"bundle-{seed}"
        emb.run(*BUILD, "--seed", seed, "--output", build)
        emb.run("bundle", build, "--target", str(HERE / "board.toml"), "--vendor", "--output", place)
        made.append(Bundle(emb.home / place))
    first, second = made
    assert first.answers != second.answers
    return first, second


@pytest.fixture(scope="session")
def installed(emb: Emb, bundles: tuple[Bundle, Bundle]) -> None:
    """The environment is on the board, which takes longest, and the first bundle is current."""
    emb.run("deploy", str(bundles[0].path), "--host", machines.HOST)


def current_digest(board: machines.Machine) -> str:
    return board.check(f"readlink emb/{NAME}/current").strip().removeprefix("releases/")


def state_of(board: machines.Machine, bundle: Bundle) -> tuple[str, bytes]:
    """(digest, answers) of the current release: what it gives on the board for the golden images of `bundle`."""
    done = board.ssh(f"readlink emb/{NAME}/current && emb/{NAME}/run predict", stdin=bundle.images)
    assert done.returncode == 0, done.stderr.decode()
    link, answers = done.stdout.split(b"\n", 1)
    return link.decode().removeprefix("releases/"), answers


def answers_of(board: machines.Machine, bundle: Bundle) -> bytes:
    """What the current release gives on the board for the golden images of `bundle`, on its own runtime."""
    return state_of(board, bundle)[1]
