"""The wheel carries recipes and targets, and works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """emb, built as a wheel and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("emb-*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


def emb(installed: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = "import emb, sys; assert sys.argv.pop(1) in emb.__file__, emb.__file__; from emb.cli import main; main()"
    call = [sys.executable, "-c", program, str(installed), *arguments, "--json"]
    return subprocess.run(call, check=True, capture_output=True, text=True, env=environment, cwd=installed).stdout


def test_recipes_and_targets_are_inside(installed: Path):
    recipes = {recipe["name"]: Path(recipe["file"]) for recipe in json.loads(emb(installed, "recipes"))}
    assert set(recipes) == {path.stem for path in (ROOT / "recipes").glob("*.toml")}
    assert all(path.is_relative_to(installed) and path.is_file() for path in recipes.values())
    targets = {target["name"] for target in json.loads(emb(installed, "targets"))}
    assert targets == {path.stem for path in (ROOT / "targets").glob("*.toml")}


def test_it_can_run(installed: Path):
    inspected = json.loads(emb(installed, "inspect", "lenet"))
    assert inspected["totals"]["parameters"] == 61_706


def test_what_boards_get_is_inside(installed: Path):
    program = (
        "from pathlib import Path; from emb import deploy; from emb.deploy.requirements import lock_file;"
        "print(lock_file()); print(Path(deploy.__file__).parent / 'device')"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=environment, cwd=installed)
    lock, device = map(Path, done.stdout.splitlines())
    assert lock.read_bytes() == (ROOT / "requirements.lock").read_bytes()
    assert lock.is_relative_to(installed)
    assert device.is_relative_to(installed)
    ours = {path.name: path.read_bytes() for path in (ROOT / "emb/deploy/device").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in device.iterdir() if path.is_file()} == ours
    assert {"run.py", "look.sh", "releases.py"} <= set(ours)
