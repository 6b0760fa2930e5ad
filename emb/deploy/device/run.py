#!/usr/bin/env python3
"""Runs the model of the bundle that this file lies in: proves itself, classifies images, measures.

    python run.py self-test            every file is as it was made, every answer the one that it must be
    python run.py classify IMAGE...    the likeliest classes of images, or of a camera's frame on stdin ("-")
    python run.py bench                latency, memory, clock and temperature over half a minute
    python run.py predict              frames on stdin, the model's raw outputs on stdout
    python run.py info                 what this machine has

Needs Python 3.9, numpy and one of the runtimes that bundle.json names; for other images than PNG, PPM, PGM and .npy
also Pillow. Exit code 0: done. 1: the self-test or the runtime failed. 2: the call was wrong, or something is missing.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
    # Python would look for every module beside this file first, and run what somebody has put there.
    del sys.path[0]

import argparse
import array
import gc
import hashlib
import importlib
import json
import os
import platform
import stat
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
IGNORED_DIRECTORIES = ("__pycache__", ".venv", "venv")
MOST_PIXELS = 1 << 26
MOST_SAMPLES = 100_000
WARM_UP_S = 2.0
PREDICT_TIMEOUT_S = 1800
RUNTIMES = {  # name: (distribution, module)
    "litert": ("ai-edge-litert", "ai_edge_litert.interpreter"),
    "tflite-runtime": ("tflite-runtime", "tflite_runtime.interpreter"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
}
RESOLVERS = {"default": "AUTO", "reference": "BUILTIN_REF"}


class Failure(Exception):
    """What the person at the board is told, in one line."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


# The bundle


def read_json(name: str) -> Any:
    try:
        return json.loads((HERE / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {name} of the bundle: {error}", 1) from None


def read_manifest() -> dict[str, Any]:
    """bundle.json, if it has the form of one; whether it tells the truth is the self-test's to find out."""
    manifest: dict[str, Any] = read_json("bundle.json")
    try:
        if not is_manifest(manifest):
            raise ValueError("it lists other files than it names")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Failure(f"bundle.json is damaged: {type(error).__name__} {error}", 1) from None
    return manifest


def is_manifest(manifest: dict[str, Any]) -> bool:
    files, golden = manifest["files"], manifest["golden"]
    named = [manifest["model"], *(one["file"] for one in golden)]
    ways = [(one["runtime"], one["mode"]) for one in [manifest, *golden]]
    return (
        all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values())
        and not any(name.startswith("/") or ".." in name.split("/") for name in files)
        and all(name in files for name in named)
        and all(runtime in RUNTIMES and mode in RESOLVERS for runtime, mode in ways)
    )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def file_faults(manifest: dict[str, Any]) -> list[str]:
    """In what the files here differ from those that bundle.json lists; nothing if they are the same."""
    faults = []
    for name, entry in manifest["files"].items():
        path = HERE / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                faults.append(f"{name} is no regular file")
            elif status.st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
                faults.append(f"{name} has been changed")
        except OSError as error:
            faults.append(f"{name} cannot be read: {error.strerror}")
    known = {*manifest["files"], "bundle.json"}
    return faults + [f"{name} does not belong to the bundle" for name in files_here() if name not in known]


def files_here() -> Iterator[str]:
    """Everything in the bundle's directory but folders, links to folders included."""
    for folder, folders, files in os.walk(HERE):
        inside = Path(folder).relative_to(HERE)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links) - set(IGNORED_DIRECTORIES if inside == Path() else ()))
        for name in sorted([*files, *links]):
            yield (inside / name).as_posix()


# Images: decoded and scaled to the bits that emb makes of them, which are Pillow's


def read_image(source: Path) -> Any:
    """(height, width, 1 or 3) uint8: grey or RGB, transparent pixels laid over white."""
    import numpy as np

    try:
        content = source.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {source}: {error.strerror}") from None
    pixels = None
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        pixels = decode_png(content, source)
    elif content[:2] in (b"P5", b"P6"):
        pixels = decode_pnm(content, source)
    elif content.startswith(b"\x93NUMPY"):
        try:
            pixels = np.load(source, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise Failure(f"{source} is damaged: {error}") from None
        pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise Failure(f"{source} holds {pixels.dtype} of shape {pixels.shape}, not uint8 (height, width, 1 or 3)")
    return decode_with_pillow(source) if pixels is None else pixels


def decode_pnm(content: bytes, source: Path) -> Any:
    """A binary .pgm or .ppm of 8 bits."""
    import numpy as np

    fields: list[int] = []
    position = 2
    while len(fields) < 3:
        end = position
        while content[end : end + 1].isspace():
            end += 1
        if content[end : end + 1] == b"#":
            position = content.find(b"\n", end) + 1 or len(content)
            continue
        position = end
        while content[position : position + 1].isdigit():
            position += 1
        if not 0 < position - end < 10:
            raise Failure(f"{source} is damaged: its header holds no width, height and highest value")
        fields.append(int(content[end:position]))
    width, height, highest = fields
    channels = 3 if content[:2] == b"P6" else 1
    require_size(source, width=width, height=height)
    if highest != 255:
        raise Failure(f"{source} has values up to {highest}; make it one of 8 bits, up to 255")
    pixels = content[position + 1 : position + 1 + height * width * channels]
    if len(pixels) != height * width * channels:
        raise Failure(f"{source} is damaged: it ends too early")
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, channels)


def require_size(source: Path, *, width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise Failure(f"{source} has {width} x {height} pixels; at most {MOST_PIXELS:,} are read")


def png_chunks(content: bytes, source: Path) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) up to the end of the image. Source: W3C, Portable Network Graphics, section 5."""
    position = 8
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        data = content[position + 8 : position + 8 + length]
        check = content[position + 8 + length : position + 12 + length]
        if len(check) != 4 or zlib.crc32(kind + data) != int.from_bytes(check, "big"):
            break
        yield kind, data
        if kind == b"IEND":
            return
        position += 12 + length
    raise Failure(f"{source} is a damaged PNG")


def decode_png(content: bytes, source: Path) -> Any:
    """None for the rare kinds that are left to Pillow: interlaced, turned by EXIF data, odd transparency."""
    import numpy as np

    chunks: dict[bytes, bytes] = {}
    for kind, data in png_chunks(content, source):
        chunks[kind] = chunks.get(kind, b"") + data if kind == b"IDAT" else data
    header = chunks.get(b"IHDR", b"")
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(header[9]) if len(header) == 13 else None
    if samples is None or b"IDAT" not in chunks:
        raise Failure(f"{source} is a damaged PNG")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, colour, interlaced = header[8], header[9], header[12]
    require_size(source, width=width, height=height)
    key = chunks.get(b"tRNS")
    if interlaced or b"eXIf" in chunks or (key is not None and colour != 3 and depth != 8):
        return None
    stride = (width * samples * depth + 7) // 8
    rows = unfiltered(chunks[b"IDAT"], source, height=height, stride=stride, step=max(1, samples * depth // 8))
    if depth == 16:
        words = rows.view(">u2").reshape(height, width, samples)
        values = ((words.astype(np.uint32) + 128) // 257 if colour == 0 else words >> 8).astype(np.uint8)
    elif depth == 8:
        values = rows.reshape(height, width, samples)
    else:
        bits = np.unpackbits(rows, axis=1)[:, : width * depth].reshape(height, width, depth)
        values = np.packbits(bits, axis=2) >> (8 - depth)
        if colour == 0:
            values = values * np.uint8(255 // (2**depth - 1))
    if colour == 3:
        return with_palette(values[..., 0], chunks.get(b"PLTE", b""), key, source)
    if key is not None:
        transparent = np.all(values == np.frombuffer(key, ">u2")[:samples], axis=2, keepdims=True)
        values = np.concatenate([values, np.where(transparent, 0, 255).astype(np.uint8)], axis=2)
    return over_white(values)


def unfiltered(packed: bytes, source: Path, *, height: int, stride: int, step: int) -> Any:
    """The bytes of all rows, (height, stride) uint8. step: bytes from a pixel to the next, the least 1."""
    import numpy as np

    wanted = height * (stride + 1)
    try:
        # No more than the header speaks of, however much a made-up file would unpack to.
        raw = zlib.decompressobj().decompress(packed, wanted)
    except zlib.error:
        raw = b""
    if len(raw) != wanted:
        raise Failure(f"{source} is a damaged PNG")
    lines = np.frombuffer(raw, dtype=np.uint8).reshape(height, stride + 1)
    rows = np.zeros((height + 1, stride), dtype=np.uint8)
    for y in range(height):
        kind, line, above = int(lines[y, 0]), lines[y, 1:], rows[y]
        if kind == 0:
            rows[y + 1] = line
        elif kind == 1:
            for channel in range(step):
                np.add.accumulate(line[channel::step], dtype=np.uint8, out=rows[y + 1, channel::step])
        elif kind == 2:
            np.add(line, above, out=rows[y + 1])
        elif kind in (3, 4):
            undo = undo_average if kind == 3 else undo_paeth
            rows[y + 1] = np.frombuffer(undo(bytearray(line), bytes(above), step), dtype=np.uint8)
        else:
            raise Failure(f"{source} is a damaged PNG")
    return rows[1:]


def undo_average(line: bytearray, above: bytes, step: int) -> bytearray:
    for index in range(len(line)):
        left = line[index - step] if index >= step else 0
        line[index] = (line[index] + (left + above[index]) // 2) & 255
    return line


def undo_paeth(line: bytearray, above: bytes, step: int) -> bytearray:
    for index in range(min(step, len(line))):
        line[index] = (line[index] + above[index]) & 255
    for index in range(step, len(line)):
        left, up, corner = line[index - step], above[index], above[index - step]
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        other = up if to_up <= to_corner else corner
        line[index] = (line[index] + (left if to_left <= min(to_up, to_corner) else other)) & 255
    return line


def with_palette(indices: Any, palette: bytes, alpha: bytes | None, source: Path) -> Any:
    import numpy as np

    colours = np.frombuffer(palette[: len(palette) // 3 * 3], dtype=np.uint8).reshape(-1, 3)
    if indices.max() >= len(colours):
        raise Failure(f"{source} is a damaged PNG")
    if alpha is None:
        return colours[indices]
    opacity = np.full((len(colours), 1), 255, dtype=np.uint8)
    known = np.frombuffer(alpha, dtype=np.uint8)[: len(colours)]
    opacity[: len(known), 0] = known
    return over_white(np.concatenate([colours, opacity], axis=1)[indices])


def over_white(values: Any) -> Any:
    """(h, w, 1 to 4) uint8 without its alpha channel, if it has one, in the integers of Pillow's alpha_composite."""
    import numpy as np

    if values.shape[2] in (1, 3):
        return values
    alpha = values[..., -1:].astype(np.uint32)
    mixed = (values[..., :-1] * alpha + 255 * (255 - alpha)) * 128 + (0x80 << 7)
    return ((((mixed >> 8) + mixed) >> 8) >> 7).astype(np.uint8)


def decode_with_pillow(source: Path) -> Any:
    import numpy as np

    try:
        image_module = importlib.import_module("PIL.Image")
        turning = importlib.import_module("PIL.ImageOps")
    except ImportError:
        raise Failure(f"{source} needs Pillow (pip install pillow); PNG, PPM, PGM and .npy mostly do not") from None
    try:
        with image_module.open(source, formats=("JPEG", "PNG", "BMP", "WEBP")) as opened:
            image = turning.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                return ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)[..., np.newaxis]
            if image.mode in ("1", "L"):
                return np.asarray(image.convert("L"))[..., np.newaxis]
            transparent = "transparency" in image.info or "A" in image.getbands() or "a" in image.getbands()
            return over_white(np.asarray(image.convert("RGBA" if transparent else "RGB")))
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise Failure(f"cannot decode {source}: {error}") from None


def fitted(pixels: Any, *, height: int, width: int, channels: int) -> Any:
    """The picture as the model takes it: grey by ITU-R 601 luma or RGB, its largest centred part scaled to size.

    pixels: (h, w, 1 or 3) uint8. Returns (height, width, channels) uint8, with the bits of Pillow's
    (13.0) resize(BILINEAR, box=...), which averages over all source pixels when it makes a picture smaller.
    """
    import numpy as np

    if channels == 1 and pixels.shape[2] == 3:
        luma = pixels @ np.array([19595, 38470, 7471], dtype=np.uint32)
        pixels = ((luma + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]
    rows, columns = pixels.shape[:2]
    if (rows, columns) != (height, width):
        part = min(columns / width, rows / height)
        left, top = (columns - width * part) / 2, (rows - height * part) / 2
        box = {
            0: (max(0.0, top), min(top + height * part, rows), height),
            1: (max(0.0, left), min(left + width * part, columns), width),
        }
        # Across, then down, each rounded to 8 bits; Pillow 13 turns it round where that is less work, by this rule.
        down_first = rows > height and rows - height > 2 * (columns - width)
        for axis in (0, 1) if down_first else (1, 0):
            pixels = scaled(pixels.swapaxes(0, axis), *box[axis]).swapaxes(0, axis)
    return np.ascontiguousarray(np.repeat(pixels, channels // pixels.shape[2], axis=2))


def scaled(pixels: Any, start: float, end: float, count: int) -> Any:
    """The part from `start` to `end` of the first axis as `count` lines: triangle filter, weights of 22 bits."""
    import numpy as np

    first, last = np.float32(start), np.float32(end)  # as Pillow's C code holds its box
    length = len(pixels)
    if count == length and first == 0 and last == length:
        return pixels
    scale = float(last - first) / count
    support = max(scale, 1.0)
    result = np.empty((count, *pixels.shape[1:]), dtype=np.uint8)
    for index in range(count):
        centre = float(first) + (index + 0.5) * scale
        low, high = max(0, int(centre - support + 0.5)), min(length, int(centre + support + 0.5))
        weights = [max(0.0, 1.0 - abs((x - centre + 0.5) * (1.0 / support))) for x in range(low, high)]
        total = sum(weights)
        fixed = np.array([int(0.5 + weight / total * (1 << 22)) for weight in weights], dtype=np.float64)
        # Sums of whole numbers below 2**53, so exact.
        sums = np.tensordot(fixed, pixels[low:high].astype(np.float64), axes=1)
        result[index] = np.clip((sums.astype(np.int64) + (1 << 21)) >> 22, 0, 255)
    return result


# The model


class Model:
    """The bundle's model on one runtime. Raises Failure if the runtime is missing or refuses the model."""

    def __init__(self, manifest: dict[str, Any], *, runtime: str, mode: str, threads: int) -> None:
        self.file, self.runtime, self.mode, self.threads = manifest["model"], runtime, mode, threads
        self.contract = read_json("contract.json")
        try:
            (described,) = self.contract["models"]
            self.input, self.output, self.scores = described["input"], described["output"], described["scores"]
            is_onnx = described["format"] == "onnx"
            self._stored = stored_pixel_values(self.input, self.contract["pixels"])
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"contract.json is damaged: {error!r}", 1) from None
        if is_onnx != (runtime == "onnxruntime") or (is_onnx and mode == "reference"):
            raise Failure(f"{runtime} ({mode}) does not run {self.file}")
        library, open_file = load_runtime(runtime), open_onnx if is_onnx else open_tflite
        try:
            self._set_input, self._invoke, self._get_output = open_file(
                library, str(HERE / self.file), mode=mode, threads=threads
            )
        except Exception as error:  # each runtime raises kinds of its own
            raise Failure(f"{runtime} refuses {self.file}: {error}", 1) from None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that the model takes."""
        shape = self.input["shape"][1:]
        if self.input["layout"] == "NCHW":
            return shape[1], shape[2], shape[0]
        return shape[0], shape[1], shape[2] if len(shape) == 3 else 1

    def set_image(self, image: Any) -> None:
        """image: (height, width, channels) uint8, the raw pixels."""
        import numpy as np

        arranged = image.transpose(2, 0, 1) if self.input["layout"] == "NCHW" else image
        self._set_input(np.ascontiguousarray(self._stored[arranged.reshape(self.input["shape"])]))

    def invoke(self) -> None:
        self._invoke()

    def raw_output(self) -> Any:
        """What the model stored, in the contract's dtype and shape."""
        return self._get_output()

    def probabilities(self) -> Any:
        """(classes,) float32 that sum to 1."""
        import numpy as np

        raw = self.raw_output().reshape(-1)
        if self.output["scale"] is None:
            values = raw.astype(np.float32)
        else:
            whole = raw.astype(np.int64) - (self.output["zero_point"] or 0)
            values = whole.astype(np.float32) * np.float32(self.output["scale"])
        if self.scores == "logits":
            values = np.exp(values - values.max())
            values = values / values.sum()
        return values


def load_runtime(name: str) -> Any:
    import_numpy()
    if name not in RUNTIMES:
        raise Failure(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}")
    distribution, module = RUNTIMES[name]
    if version_of(distribution) is None:
        raise Failure(f"{name} is not installed for this Python; see README.md: pip install -r requirements.txt")
    try:
        return importlib.import_module(module)
    except Exception as error:  # a wheel for another system fails in many ways
        raise Failure(f"{name} is installed and cannot be loaded: {error}", 1) from None


def open_tflite(library: Any, path: str, *, mode: str, threads: int) -> tuple[Callable[[Any], None], Any, Any]:
    resolver = getattr(library.OpResolverType, RESOLVERS[mode])
    interpreter = library.Interpreter(model_path=path, num_threads=threads, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    return (
        lambda values: interpreter.set_tensor(source, values),
        interpreter.invoke,
        lambda: interpreter.get_tensor(target),
    )


def open_onnx(library: Any, path: str, *, mode: str, threads: int) -> tuple[Callable[[Any], None], Any, Any]:
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_output(session.get_outputs()[0].name)
    name = session.get_inputs()[0].name
    return (
        lambda values: binding.bind_cpu_input(name, values),
        lambda: session.run_with_iobinding(binding),
        lambda: binding.copy_outputs_to_cpu()[0],
    )


def stored_pixel_values(tensor: dict[str, Any], pixels: dict[str, float]) -> Any:
    """What the input holds for each pixel value 0..255: round(real / scale) + zero point, halves to even."""
    import numpy as np

    real = np.arange(256, dtype=np.float64) * pixels["scale"] + pixels["offset"]
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return real.astype(dtype)
    limits = np.iinfo(dtype)
    stored = np.rint(real / (tensor["scale"] or 1.0)) + (tensor["zero_point"] or 0)
    return np.clip(stored, limits.min, limits.max).astype(dtype)


# The machine. What it does not tell is None


def version_of(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def import_numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise Failure(
            "numpy is not installed for this Python; see README.md: pip install -r requirements.txt"
        ) from None


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    text = text_of(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def status_bytes(field: str, path: str = "/proc/self/status") -> int | None:
    """A field in kB of a file like /proc/self/status, in bytes."""
    for line in (text_of(Path(path)) or "").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    root = Path("/")
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in (text_of(root / "proc/cpuinfo") or "").splitlines()
            if line.partition(":")[0].strip() in ("model name", "Model", "Hardware")
        ),
        None,
    )
    library, glibc = platform.libc_ver()
    return {
        "board": text_of(root / "proc/device-tree/model"),
        "processor": processor,
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "cores": usable_cores(),
        "memory_bytes": status_bytes("MemTotal", "/proc/meminfo"),
        "python": platform.python_version(),
        "glibc": glibc if library == "glibc" else None,
        "numpy": version_of("numpy"),
        "runtimes": {name: version_of(distribution) for name, (distribution, _) in RUNTIMES.items()},
    }


def board_state(root: Path = Path("/")) -> dict[str, Any]:
    """Clock, temperature and firmware flags of this moment."""
    clocks = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    raw = throttled_flags(root)
    return {
        "governor": text_of(clocks[0] / "scaling_governor") if clocks else None,
        "frequency_hz": frequencies(root),
        "highest_frequency_hz": [in_hz(number_of(clock / "cpuinfo_max_freq")) for clock in clocks] or None,
        "temperature_c": temperatures(root),
        "throttled": None if raw is None else throttling(raw),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def frequencies(root: Path) -> list[int | None] | None:
    """Of each core, in hertz."""
    clocks = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    return [in_hz(number_of(clock / "scaling_cur_freq")) for clock in clocks] or None


def in_hz(khz: int | None) -> int | None:
    return None if khz is None else khz * 1000


def temperatures(root: Path) -> dict[str, float] | None:
    """Zone -> degrees Celsius."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        millidegrees = number_of(zone / "temp")
        if millidegrees is not None:
            name = text_of(zone / "type") or zone.name
            found[f"{name} ({zone.name})" if name in found else name] = millidegrees / 1000
    return found or None


def powers(root: Path) -> dict[str, float] | None:
    """Sensor -> watts at this moment, of those that the kernel knows: a board's own, or one wired to its supply.

    Source: kernel documentation, hwmon/sysfs-interface.rst: power[1-*]_input, in microwatts.
    """
    found = {}
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*/power[0-9]*_input")):
        microwatts = number_of(sensor)
        if microwatts is not None:
            label = text_of(sensor.with_name(sensor.name.replace("_input", "_label")))
            name = " ".join(filter(None, (text_of(sensor.parent / "name") or sensor.parent.name, label)))
            found[f"{name} ({sensor.parent.name}/{sensor.name})" if name in found else name] = microwatts / 1e6
    return found or None


def throttled_flags(root: Path) -> int | None:
    """The firmware's word on a Raspberry Pi, from the kernel or from vcgencmd."""
    text = text_of(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is None and root == Path("/"):
        with suppress(OSError, subprocess.SubprocessError):
            call = ["vcgencmd", "get_throttled"]
            said = subprocess.run(call, capture_output=True, text=True, timeout=5, check=True).stdout
            text = said.partition("=")[2].strip()
    try:
        return int(text or "", 16)
    except ValueError:
        return None


def throttling(raw: int) -> dict[str, Any]:
    """Source: Raspberry Pi documentation, vcgencmd, get_throttled."""
    flags = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
    now = {name: bool(raw >> bit & 1) for bit, name in enumerate(flags)}
    since_boot = {f"{name}_since_boot": bool(raw >> bit + 16 & 1) for bit, name in enumerate(flags)}
    return {"raw": raw, **now, **since_boot}


# The commands


def self_test(options: argparse.Namespace) -> int:
    manifest = read_manifest()
    digest = sha256_of(HERE / "bundle.json")
    faults = file_faults(manifest)
    if options.digest and options.digest != digest:
        faults.insert(0, f"bundle.json has the sha256 {digest}, not {options.digest}")
    results = [] if faults else [golden_result(manifest, golden) for golden in manifest["golden"]]
    passed = not faults and all(result["error"] is None for result in results)
    if options.json:
        print_json(
            {"passed": passed, "bundle": digest, "files": len(manifest["files"]), "faults": faults, "results": results}
        )
        return 0 if passed else 1
    for fault in faults:
        print(f"fault: {fault}")
    if not faults:
        print(f"files: all {len(manifest['files'])} as they were made")
    for result in results:
        print(f"{result['runtime']} ({result['mode']}): {told_result(result)}")
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


def told_result(result: dict[str, Any]) -> str:
    if result["error"]:
        return f"FAILED: {result['error']}"
    if not result["installed"]:
        return "not installed"
    return f"{result['equal']} of {result['outputs']} outputs equal, over {result['images']} images"


def golden_result(manifest: dict[str, Any], golden: dict[str, str]) -> dict[str, Any]:
    """What one runtime answers to the golden images, in a process of its own: a crash there is a result here."""
    runtime, mode = golden["runtime"], golden["mode"]
    version = version_of(RUNTIMES[runtime][0])
    is_default = (runtime, mode) == (manifest["runtime"], manifest["mode"])
    result: dict[str, Any] = {"runtime": runtime, "mode": mode, "default": is_default, "version": version}
    result.update(installed=version is not None, images=0, outputs=0, equal=0, error=None)
    if version is None:
        result["error"] = f"{runtime} is not installed, and the bundle runs on it" if is_default else None
        return result
    np = import_numpy()
    expected = np.load(HERE / golden["file"], allow_pickle=False)
    images = np.load(HERE / "golden/images.npy", allow_pickle=False)[: len(expected)]
    flags = ["-I"] if sys.flags.isolated else []
    call = [sys.executable, *flags, str(HERE / "run.py"), "predict", "--runtime", runtime, "--mode", mode]
    result.update(images=len(expected), outputs=int(expected.size))
    try:
        done = subprocess.run(call, input=images.tobytes(), capture_output=True, timeout=PREDICT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        result["error"] = f"no answer within {PREDICT_TIMEOUT_S} s"
        return result
    if done.returncode or len(done.stdout) != expected.nbytes:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        result["error"] = words[0].replace("error: ", "", 1)
        return result
    # As bytes: a float that is not a number equals itself, and minus zero is not zero.
    shape = (expected.size, expected.itemsize)
    given = np.frombuffer(done.stdout, dtype=np.uint8).reshape(shape)
    wanted = np.frombuffer(expected.tobytes(), dtype=np.uint8).reshape(shape)
    result["equal"] = int(np.all(given == wanted, axis=1).sum())
    if result["equal"] != result["outputs"]:
        result["error"] = f"only {result['equal']} of {result['outputs']} outputs are equal"
    return result


def classify(options: argparse.Namespace) -> int:
    np = import_numpy()
    manifest = read_manifest()
    if options.images.count("-") > 1:
        raise Failure('"-" may be given once: it reads all of stdin')
    pictures = [frame_of_stdin(options.size) if name == "-" else read_image(Path(name)) for name in options.images]
    model = Model(manifest, **way(options, manifest))
    labels = model.contract["labels"]
    height, width, channels = model.image_shape
    answers = []
    for name, picture in zip(options.images, pictures):
        model.set_image(fitted(picture, height=height, width=width, channels=channels))
        model.invoke()
        scores = model.probabilities()
        best = np.argsort(-scores, kind="stable")[: options.top]
        classes = [{"label": labels[index], "probability": float(scores[index])} for index in best]
        answers.append({"image": name, "classes": classes})
    if options.json:
        print_json(answers)
        return 0
    for answer in answers:
        told = "  ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in answer["classes"])
        print(f"{answer['image']}: {told}")
    return 0


def frame_of_stdin(size: str | None) -> Any:
    """One raw frame of uint8, (height, width, 1 or 3)."""
    np = import_numpy()
    width, times, height = (size or "").partition("x")
    if not (times and width.isdigit() and height.isdigit()):
        raise Failure('a frame on stdin needs its size: --size WIDTHxHEIGHT, for example "--size 640x480"')
    rows, columns = int(height), int(width)
    require_size(Path("the frame"), width=columns, height=rows)
    content = sys.stdin.buffer.read(3 * rows * columns + 1)
    if len(content) not in (rows * columns, 3 * rows * columns):
        raise Failure(f"a frame of {size} has {rows * columns:,} bytes in grey and {3 * rows * columns:,} in RGB")
    return np.frombuffer(content, dtype=np.uint8).reshape(rows, columns, -1)


def predict(options: argparse.Namespace) -> int:
    np = import_numpy()
    outputs = own_stdout()
    manifest = read_manifest()
    model = Model(manifest, **way(options, manifest))
    frame_bytes = int(np.prod(model.image_shape))
    while True:
        frame = sys.stdin.buffer.read(frame_bytes)
        if not frame:
            return 0
        if len(frame) != frame_bytes:
            raise Failure(f"the last frame has {len(frame):,} bytes; this model takes frames of {frame_bytes:,}")
        model.set_image(np.frombuffer(frame, dtype=np.uint8).reshape(model.image_shape))
        model.invoke()
        outputs.write(model.raw_output().tobytes())
        outputs.flush()


def own_stdout() -> BinaryIO:
    """stdout for the outputs alone: whatever a runtime prints goes to stderr from now on."""
    outputs = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return outputs


def bench(options: argparse.Namespace) -> int:
    np = import_numpy()
    manifest = read_manifest()
    images = np.load(HERE / "golden/images.npy", allow_pickle=False)
    before = board_state()
    model = Model(manifest, **way(options, manifest))
    _, warm_up_ns, _ = timed(model, images, min(WARM_UP_S, options.seconds), every=1)
    # All of them would be millions of a small model: then every second or third run is kept, and all are run.
    every = 1 + int(options.seconds * 1e9 / sorted(warm_up_ns)[len(warm_up_ns) // 2] / MOST_SAMPLES)
    # Now, as the samples to come are no memory of the model's.
    peak_bytes, alive = status_bytes("VmHWM"), threads_alive()
    starts_ns, latencies_ns, course = timed(model, images, options.seconds, every=every)
    after = board_state()
    measured = {
        "bundle": sha256_of(HERE / "bundle.json"),
        "name": manifest["name"],
        "target": manifest["target"],
        "model": manifest["model"],
        "sha256": manifest["files"][manifest["model"]]["sha256"],
        "runtime": model.runtime,
        "version": version_of(RUNTIMES[model.runtime][0]),
        "mode": model.mode,
        "threads": model.threads,
        "threads_alive": alive,
        "seconds": options.seconds,
        "warm_up_runs": len(warm_up_ns),
        "kept_one_run_in": every,
        "peak_memory_bytes": peak_bytes,
        "machine": machine(),
        "before": before,
        "after": after,
        "course": course,
        "start_ns": starts_ns.tolist(),
        "latency_ns": latencies_ns.tolist(),
    }
    if options.json:
        print_json(measured)
    else:
        print("\n".join(told_bench(measured)))
    return 0


def timed(model: Model, images: Any, seconds: float, *, every: int) -> tuple[Any, Any, list[dict[str, Any]]]:
    """(start of each run kept, in ns from the first on; time of its inference alone; the clock each second)."""
    starts_ns, latencies_ns = array.array("q"), array.array("q")
    course: list[dict[str, Any]] = []
    now = time.perf_counter_ns
    runs = 0
    gc.disable()
    begin = look = now()
    end = begin + int(seconds * 1e9)
    while not runs or now() < end:
        model.set_image(images[runs % len(images)])
        start = now()
        model.invoke()
        took = now() - start
        if runs % every == 0:
            starts_ns.append(start - begin)
            latencies_ns.append(took)
        runs += 1
        if start >= look:
            root = Path("/")
            state = {"frequency_hz": frequencies(root), "temperature_c": temperatures(root), "power_w": powers(root)}
            course.append({"at_ns": start - begin, **state})
            look += 1_000_000_000
    gc.enable()
    return starts_ns, latencies_ns, course


def threads_alive() -> int | None:
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return None


def told_bench(measured: dict[str, Any]) -> list[str]:
    ordered = sorted(measured["latency_ns"])
    median, p90 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6 for share in (0.5, 0.9))
    count = measured["threads"]
    peak = measured["peak_memory_bytes"]
    lines = [
        f"{measured['model']} on {measured['runtime']} {measured['version']} ({measured['mode']}), "
        f"{count} thread{'s' if count > 1 else ''}",
        f"latency: median {median:.3f} ms, p90 {p90:.3f} ms, {len(ordered):,} samples over {measured['seconds']:g} s",
        f"peak memory of the process: {'unknown' if peak is None else f'{peak / 1e6:.0f} MB'}",
    ]
    for moment in ("before", "after"):
        state = {name: value for name, value in measured[moment].items() if value is not None}
        lines.append(f"{moment}: " + (", ".join(f"{name} {value}" for name, value in state.items()) or "unknown"))
    return lines


def info(options: argparse.Namespace) -> int:
    found = machine()
    if options.json:
        print_json(found)
        return 0
    for name, value in found.items():
        print(f"{name}: {'unknown' if value is None else value}")
    return 0


def way(options: argparse.Namespace, manifest: dict[str, Any]) -> dict[str, Any]:
    """Runtime, mode and threads: those of the call, else the bundle's."""
    runtime = options.runtime or manifest["runtime"]
    golden = [one["mode"] for one in manifest["golden"] if one["runtime"] == runtime]
    # A runtime that was chosen runs in the mode that the bundle has answers for.
    mode = (
        manifest["mode"] if runtime == manifest["runtime"] or manifest["mode"] in golden else (golden or ["default"])[0]
    )
    return {"runtime": runtime, "mode": options.mode or mode, "threads": options.threads}


def print_json(value: Any) -> None:
    print(json.dumps(value))


def thread_count(text: str) -> int:
    return usable_cores() if text == "all" else count(text)


def count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be above 0, not {text}")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Failure(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    whole = Parser(prog="run.py", description="Runs the model of this bundle.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, work: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(work=work)
        return added

    test = command("self-test", self_test, "check every file, and every answer to the golden images bit for bit")
    test.add_argument("--digest", metavar="SHA256", help="what bundle.json must have")
    pictures = command("classify", classify, "say the likeliest classes of images")
    pictures.add_argument("images", nargs="+", metavar="IMAGE|-", help='an image file, or "-": a raw frame on stdin')
    pictures.add_argument("--size", metavar="WxH", help="of the frame on stdin, uint8, grey or RGB")
    pictures.add_argument("--top", type=count, default=3, metavar="N", help="classes to name (3)")
    time_it = command("bench", bench, "measure latency and memory")
    time_it.add_argument("--seconds", type=positive, default=30.0, help="to measure after the warm-up (30)")
    frames = command("predict", predict, "frames of the model's size on stdin, raw outputs on stdout")
    about = command("info", info, "what this machine has")
    for one in (pictures, time_it, frames):
        one.add_argument("--runtime", metavar="NAME", help="another than the bundle's: " + ", ".join(RUNTIMES))
        one.add_argument("--mode", choices=sorted(RESOLVERS), help="of the runtime: its own or the reference kernels")
        one.add_argument("--threads", type=thread_count, default=1, metavar="N|all", help="for one inference (1)")
    for one in (test, pictures, time_it, about):
        one.add_argument("--json", action="store_true", help="print one JSON document")
    return whole


def main() -> int:
    try:
        options = parser().parse_args()
        return int(options.work(options))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    except BrokenPipeError:  # the reader has gone; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
