"""Whether a board gives the bits that this machine gave when it built the models. Prints a Markdown table with hashes.

Deploys every build to the board, once as .tflite and once as .onnx, and has the board's run.py answer the build's
golden images on each runtime and in each mode whose bits are said to be the same everywhere. A hash is the sha256 of
the raw outputs, one behind the other: on the left of what the build kept, on the right of what came from the board. The
deploy itself compares all golden images; --images says how many of them are hashed here.

Usage: python benchmarks/bit_exactness.py BUILD... --host HOST [--target rpi4] [--images 16] [--ssh-config FILE]
       (make board prints HOST and FILE; an emulated board takes minutes for each model)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emb.deploy.bundle import open_bundle
from emb.deploy.ssh import Ssh
from emb.errors import EmbError
from emb.pipeline.board_channel import channel_to
from emb.pipeline.bundle import bundle
from emb.pipeline.deliverable import find_all
from emb.pipeline.deploy import deploy


def lines_of(build: Path, ssh: Ssh, *, target: str, most_images: int) -> Iterator[str]:
    """The table's lines for one build."""
    for deliverable in find_all(build):
        if deliverable.scheme != "int8":
            continue
        with tempfile.TemporaryDirectory(prefix="emb-") as folder:
            made = bundle(
                build, target=target, file=deliverable.path.name, output_directory=Path(folder) / "b", vendor=True
            )
            (outcome,) = deploy(str(made.directory), hosts=[ssh.host], ssh_config=ssh.config, tell=tell)
            if outcome.error is not None:
                raise outcome.error
            opened = open_bundle(made.directory)
            images = _array(made.directory / "golden/images.npy")
            channel = channel_to(ssh, opened.manifest.name)
            for golden in opened.manifest.golden:
                kept = _array(made.directory / golden.file)[:most_images]
                tell(ssh.host, f"{opened.manifest.model} on {golden.runtime} ({golden.mode})")
                call = ["predict", "--runtime", golden.runtime, "--mode", golden.mode]
                there = channel(call, [images[: len(kept)].tobytes()])
                here = kept.tobytes()
                verdict = "yes" if here == there else f"no: {_different(here, there):,} of {len(here):,} bytes"
                yield (
                    f"| {opened.manifest.model} | {golden.runtime} ({golden.mode}) | {len(kept)} "
                    f"| `{_short(here)}` | `{_short(there)}` | {verdict} |"
                )


def tell(host: str, words: str) -> None:
    """Progress, beside the table."""
    print(f"{host}: {words}", file=sys.stderr)


def _array(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _different(here: bytes, there: bytes) -> int:
    return sum(one != other for one, other in zip(here, there, strict=False)) + abs(len(here) - len(there))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--host", required=True)
    parser.add_argument("--target", default="rpi4")
    parser.add_argument("--images", type=int, default=16, metavar="N")
    parser.add_argument("--ssh-config", type=Path, default=os.environ.get("EMB_SSH_CONFIG"))
    options = parser.parse_args()
    try:
        ssh = Ssh(host=options.host, config=Path(options.ssh_config) if options.ssh_config else None)
        print("| model | runtime (mode) | images | here | on the board | same bits |\n|---|---|---|---|---|---|")
        for build in options.builds:
            for line in lines_of(build, ssh, target=options.target, most_images=options.images):
                print(line, flush=True)
    except EmbError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
