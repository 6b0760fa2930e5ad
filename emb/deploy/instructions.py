"""Writes the README.md of a bundle, for the person at the board who has never heard of emb. Knows no file system."""

from __future__ import annotations

from emb.spec.bundle import BundleManifest
from emb.spec.contract import Contract
from emb.spec.target import Target

_ACCELERATORS = {
    "edge-tpu": "the Edge TPU. It was compiled by edgetpu_compiler",
    "ethos-u": "the Ethos-U. It was compiled by Vela",
}


def instructions(manifest: BundleManifest, contract: Contract, target: Target, *, vendored: bool) -> str:
    """The page in Markdown."""
    sections = [
        _opening(manifest, contract, target),
        _install(manifest, vendored=vendored),
        _use(manifest, contract),
        _model(manifest, contract),
        _measure(),
    ]
    if target.accelerator.kind != "none":
        sections.append(_accelerator(manifest, target))
    return "\n\n".join(sections) + "\n"


def _opening(manifest: BundleManifest, contract: Contract, target: Target) -> str:
    return (
        f"# {manifest.name} for {target.summary}\n\n"
        f"An int8 image classifier with {len(contract.labels)} classes, with what it takes to run it and to prove that "
        "it answers here as it did where it was made. Everything works from this directory; nothing needs root."
    )


def _install(manifest: BundleManifest, *, vendored: bool) -> str:
    needs = manifest.requires
    pythons = f", Python {', '.join(needs.python)}" if needs.python else ", Python"
    offline = "--no-index --find-links wheels " if vendored else ""
    system = f"{needs.architecture} Linux" if needs.architecture != "any" else "Linux"
    glibc = f", glibc {needs.glibc} or newer" if needs.glibc else ""
    network = "The wheels are in `wheels/`; no network is needed." if vendored else "This downloads the wheels."
    return (
        "## Install\n\n"
        f"Needed: {system}{glibc}{pythons}, {needs.free_bytes / 1e6:.0f} MB of free space. {network}\n\n"
        "```sh\n"
        "python3 -m venv .venv\n"
        f".venv/bin/pip install {offline}--require-hashes -r requirements.txt\n"
        ".venv/bin/python run.py self-test\n"
        "```\n\n"
        "The self-test compares every file with the hash that `bundle.json` lists, and the model's answers to the "
        "images in `golden/` with those in there, bit for bit. If it does not end with `passed`, do not use the model."
    )


def _use(manifest: BundleManifest, contract: Contract) -> str:
    grey, colour = "1 byte a pixel, grey", "3 bytes a pixel, red, green, blue"
    channels, other = (grey, colour) if contract.channel_order == "grey" else (colour, grey)
    return (
        "## Classify\n\n"
        "```sh\n"
        ".venv/bin/python run.py classify photo.png\n"
        "ffmpeg -loglevel error -f v4l2 -video_size 640x480 -i /dev/video0 -frames:v 1 -f rawvideo "
        f"-pix_fmt {'gray' if contract.channel_order == 'grey' else 'rgb24'} - \\\n"
        "    | .venv/bin/python run.py classify - --size 640x480\n"
        "```\n\n"
        "PNG, PPM, PGM and .npy files are read as they are; for JPEG and others install Pillow as well (`pip install "
        f"pillow`). A frame on stdin is raw uint8, row by row, {channels}; or {other}. The largest centred part of a "
        "picture is scaled to the model's input. `--json` gives one JSON document, `--top` more classes.\n\n"
        f"It runs on {manifest.runtime} ({manifest.mode} kernels) unless `--runtime` and `--mode` say otherwise."
    )


def _model(manifest: BundleManifest, contract: Contract) -> str:
    (model,) = contract.models
    tensor, output = model.input, model.output
    rows = [
        ("file", f"`{model.file}`, {manifest.files[model.file].bytes:,} bytes, sha256 `{model.sha256}`"),
        ("input", f"{_shape(tensor.shape)} {tensor.dtype}, {tensor.layout}, {contract.channel_order}"),
        ("stored", _stored(tensor.scale, tensor.zero_point)),
        ("pixels", f"real = pixel x {contract.pixels.scale:g} + {contract.pixels.offset:g}, pixel in 0..255"),
        ("output", f"{_shape(output.shape)} {output.dtype}, {model.scores} in the order of `labels.txt`"),
        ("stored", _stored(output.scale, output.zero_point)),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        "## What the model takes and gives\n\n"
        "`run.py` does all of this; whoever feeds the model from another program finds it in `contract.json`.\n\n"
        f"| | |\n| --- | --- |\n{table}"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _stored(scale: float | None, zero_point: int | None) -> str:
    if scale is None:
        return "the real values themselves"
    return f"real = (stored - {zero_point or 0}) x {scale:.9g}"


def _measure() -> str:
    return (
        "## Measure\n\n"
        "```sh\n"
        ".venv/bin/python run.py bench\n"
        ".venv/bin/python run.py bench --threads all --json > bench.json\n"
        "```\n\n"
        "Half a minute of single inferences after a warm-up, with clock, temperature and throttling before and after, "
        "as far as the board tells them. With `--json` every sample and its time are in the document."
    )


def _accelerator(manifest: BundleManifest, target: Target) -> str:
    name = _ACCELERATORS.get(target.accelerator.kind, target.accelerator.kind)
    if manifest.compiled:
        told = (
            f"`{manifest.compiled}` is the same model for {name}. `run.py` runs `{manifest.model}` on the processor, "
            "which is what the golden outputs are of; the accelerator's own runtime takes the compiled file."
        )
    else:
        told = (
            f"The build held no file compiled for {name.partition('.')[0]}: `{manifest.model}` is the input of its "
            "compiler. Until it is compiled, the model runs on the processor alone."
        )
    return f"## The accelerator\n\n{told}"
