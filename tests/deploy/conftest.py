"""run.py, the file that goes onto the board, as a module; and a small bundle that needs no model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from emb import deploy
from emb.deploy.bundle import entries_of, manifest_text, open_bundle, set_modes, write_archive
from emb.spec.bundle import FORMAT_VERSION, MANIFEST, BundleManifest, GoldenOutput, Requirements

CONTENTS = {
    "contract.json": b"{}\n",
    "golden/images.npy": b"images",
    "golden/litert.default.npy": b"outputs",
    "labels.txt": b"cat\ndog\n",
    "net-int8.tflite": bytes(range(256)) * 5,
    "run.py": b"#!/usr/bin/env python3\n",
}


@pytest.fixture(scope="session")
def device() -> ModuleType:
    path = Path(deploy.__file__).parent / "device" / "run.py"
    spec = importlib.util.spec_from_file_location("run_on_the_board", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_bundle(directory: Path, contents: Mapping[str, bytes] = CONTENTS) -> BundleManifest:
    """A bundle of the format as emb writes it, of contents that mean nothing."""
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        name="net-int8",
        target="rpi4",
        model="net-int8.tflite",
        runtime="litert",
        mode="default",
        golden=(GoldenOutput(runtime="litert", mode="default", file="golden/litert.default.npy"),),
        requires=Requirements(architecture="aarch64", python=("3.11",), glibc="2.27", free_bytes=1_000_000),
        files=entries_of(directory),
    )
    (directory / MANIFEST).write_bytes(manifest_text(manifest))
    set_modes(directory)
    return manifest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sound bundle's directory."""
    place = tmp_path / "sound"
    place.mkdir()
    write_bundle(place)
    return place


@pytest.fixture
def archive(directory: Path, tmp_path: Path) -> Path:
    """The same bundle's .tar.gz, alone in a folder."""
    (tmp_path / "alone").mkdir()
    path = tmp_path / "alone" / "sound.tar.gz"
    write_archive(directory, path, manifest=open_bundle(directory).manifest)
    return path
