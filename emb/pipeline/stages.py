"""The work of each stage but those that make the model: files in, files out. Decides neither order nor names.

File names inside an artifact are the same whatever the recipe is called, so that equal work has equal digests.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError
from emb.pipeline.graphs import scores_of
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.measuring import golden_on, too_long_on_reference_kernels
from emb.pipeline.pixels import PIXELS
from emb.pipeline.quantized_models import RANGES, FloatOperation, float_operations, read_known
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.dataset import Images, Split
from emb.spec.scheme import Scheme

GOLDEN_IMAGES = 16
MISTAKES = 12
_PREDICT_BYTES = 64 * 2**20


def data(work: Work) -> None:
    """data.json: what the data set holds.  golden.npy: the first test images of each class in turn, uint8."""
    dataset = work.context.dataset
    write_json(
        work.folder / "data.json",
        {
            "name": dataset.name,
            "shape": dataset.shape,
            "labels": dataset.labels,
            "train_images": len(dataset.train),
            "validation_images": len(dataset.validation),
            "test_images": len(dataset.test),
            "notes": dataset.notes,
        },
    )
    np.save(work.folder / "golden.npy", _golden_images(dataset.test))


def calibration(work: Work) -> None:
    """calibration.npy: train images, equally many of each class, uint8.  notes.json: what is odd about them.

    Raises DataError for images that would spoil every integer range.
    """
    from emb.pipeline.calibration import drawn, notes_of, refuse_broken

    recipe = work.context.recipe
    count, seed = recipe.quantize.calibration_images, recipe.train.seed
    chosen, findings = drawn(work.context.dataset, count=count, seed=seed)
    refuse_broken(findings)
    np.save(work.folder / "calibration.npy", chosen.images[:])
    write_json(work.folder / "notes.json", notes_of(findings))


def export_float(work: Work, *, file_format: str, model: str, source: str = "model") -> None:
    """model.<format>, the float32 file of the model, and pixels.json, how its input follows from a raw pixel.

    source: the stage that made the model.
    """
    pixels = write_float(work.done[source].directory / model, work.folder / f"model.{file_format}", work=work)
    write_json(work.folder / "pixels.json", asdict(pixels))


def write_float(model: Path, path: Path, *, work: Work) -> Pixels:
    """The float32 file, in the format of its suffix, of a model; returns how its input follows from a raw pixel."""
    from emb.export.source import open_source, without_softmax

    source = open_source(model, trust=work.context.trust_model)
    if work.context.recipe.export.softmax == "drop":
        source = without_softmax(source)
    wanted = PIXELS[work.context.recipe.input.pixels]
    return source.write(path, file_format=path.suffix.removeprefix("."), pixels=wanted)


def quantize(work: Work, *, file_format: str, scheme: Scheme, source: str, chosen: str = "") -> None:
    """model.<format> in another scheme, and pixels.json. source: the stage that made the float32 file.

    chosen: the stage that chose ranges for it, "" if they follow from the calibration alone.
    """
    from emb.quantize import quantize_onnx, quantize_tflite

    convert = {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format]
    path = work.file(source, f"model.{file_format}")
    packed = convert(
        path,
        work.folder / f"model.{file_format}",
        scheme=scheme,
        calibration=np.load(work.file("calibration", "calibration.npy")) if scheme.calibrated else None,
        method=work.context.recipe.quantize.calibration_method,
        pixels=_pixels(work, source),
        known=read_known(work.done[chosen]) if chosen else (),
        kept=frozenset(one.output for one in _float_operations(work, path, chosen)),
        lanes=work.context.recipe.quantize.lanes,
        maps=work.context.recipe.quantize.maps,
    )
    shutil.copyfile(work.file(source, "pixels.json"), work.folder / "pixels.json")
    if packed:
        write_json(work.folder / "notes.json", [_packed_note(packed, file_format=file_format, scheme=scheme)])


def _packed_note(count: int, *, file_format: str, scheme: Scheme) -> str:
    return (
        f"{scheme.name} .{file_format}: neighbouring pixels are the channels of {count} "
        f"convolution{'s' if count > 1 else ''}, for the target's kernels: the same answers, and zeros among its MACs"
    )


def check(work: Work, *, file_format: str, scheme: Scheme, source: str, chosen: str = "") -> None:
    """graph.json: size, parameters, MACs and border of a file that obeys the rules. Raises ExportError otherwise.

    chosen: the stage that chose which of its layers compute in float32, "" if none may.
    """
    from emb.graph.cost import cost
    from emb.graph.files import read
    from emb.graph.rules import check as violations_of
    from emb.pipeline.graphs import border, rules_for, scores_of

    path = work.file(source, f"model.{file_format}")
    graph = read(path)
    floats = _float_operations(work, path, chosen)
    kept = frozenset(one.operation for one in floats)
    violations = violations_of(graph, rules_for(scheme, file_format=file_format, kept=kept))
    if violations:
        raise ExportError(
            f"the {scheme.name} {file_format} file breaks a rule",
            why="\n       ".join(str(violation) for violation in violations),
            fix="choose another scheme, or replace the layer behind the operation that is named",
        )
    inputs, outputs = border(path)
    content = path.read_bytes()
    total = cost(graph)
    write_json(
        work.folder / "graph.json",
        {
            "bytes": len(content),
            "gzip_bytes": len(gzip.compress(content, compresslevel=9, mtime=0)),
            "parameters": total.parameters,
            "macs": total.macs,
            "input": asdict(inputs),
            "output": asdict(outputs),
            "scores": scores_of(graph),
            "float_layers": list(dict.fromkeys(one.layer for one in floats)),
        },
    )


def reference(work: Work, *, model: str) -> None:
    """The float model's own answers: scores.npy over the test split, golden.npy, and accuracy.json.

    A Keras model or SavedModel answers in its own framework, a .tflite or .onnx file on its runtime.
    """
    from emb.bench import top1

    test = work.context.dataset.test
    golden = np.load(work.file("data", "golden.npy"))
    answer = answers_of(work.done["model"].directory / model, work)
    scores = answer(test.images)
    np.save(work.folder / "scores.npy", scores)
    np.save(work.folder / "golden.npy", answer(golden))
    write_json(work.folder / "accuracy.json", asdict(top1(scores, test.labels)))


def verify(work: Work, *, file_format: str, source: str, runtime: str, mode: str) -> None:
    """What a runtime answers: scores.npy over the test split, golden.npy (raw outputs), and verified.json.

    In the default mode mistakes.npz as well: the images whose wrong answers it was surest of.
    On reference kernels, which need seconds for a large network, golden.npy may be of the first images alone, and
    instead of scores there is the reason in verified.json.
    Raises RuntimeFailure if the runtime fails, ExportError if it answers otherwise when asked again.
    """
    from emb.bench import agreement, judge, softmax, top1
    from emb.graph.cost import cost
    from emb.graph.files import read
    from emb.runtimes import open_runtime, to_input

    test = work.context.dataset.test
    pixels = _pixels(work, source)
    golden_images = np.load(work.file("data", "golden.npy"))
    path = work.file(source, f"model.{file_format}")
    graph = read(path)
    macs = cost(graph).macs
    skipped = too_long_on_reference_kernels(mode, macs=macs, images=len(test))
    with open_runtime(runtime, model=path, mode=mode) as process:
        count = golden_on(mode, macs=macs, images=len(golden_images))
        golden_inputs = to_input(golden_images[:count], process.input, pixels)
        golden = process.run_each(golden_inputs)
        scores = None if skipped else process.scores(test.images, pixels=pixels)
        again = process.run_each(golden_inputs)
    if golden.tobytes() != again.tobytes():
        raise ExportError(
            f"{runtime} ({mode}) does not give the same answer twice",
            why="its outputs for the golden images changed between two passes",
            fix="do not deploy this file on this runtime",
        )
    np.save(work.folder / "golden.npy", golden)
    if scores is None:
        write_json(work.folder / "verified.json", {"skipped": skipped})
        return
    np.save(work.folder / "scores.npy", scores)
    probabilities = softmax(scores) if scores_of(graph) == "logits" else scores
    verified = asdict(top1(scores, test.labels)) | asdict(judge(scores, probabilities, test.labels))
    verified["agreement"] = agreement(scores, np.load(work.file("reference", "scores.npy")))
    write_json(work.folder / "verified.json", verified)
    if mode == "default":
        _write_mistakes(work.folder / "mistakes.npz", probabilities, test)


def measure(work: Work, *, file_format: str, source: str, runtime: str, mode: str) -> None:
    """latency.json: raw samples of single inferences on one thread, and the peak memory of the process.

    Where the row would take too long on reference kernels it holds the reason.
    """
    from emb.pipeline.measuring import time_file

    path = work.file(source, f"model.{file_format}")
    images = read_json(work.file("data", "data.json"))["test_images"]
    if skipped := too_long_on_reference_kernels(mode, macs=_macs(path), images=images):
        write_json(work.folder / "latency.json", {"skipped": skipped})
        return
    timing = time_file(
        path,
        np.load(work.file("data", "golden.npy")),
        runtime=runtime,
        mode=mode,
        threads=1,
        pixels=_pixels(work, source),
    )
    (work.folder / "latency.json").write_text(json.dumps(timing.to_json()), encoding="utf-8")


def _write_mistakes(path: Path, probabilities: NDArray[np.float32], test: Split) -> None:
    """The worst of them: images (m, height, width, channels) uint8, their numbers, labels, answers and confidence."""
    from emb.bench import worst_mistakes

    numbers = worst_mistakes(probabilities, test.labels, most=MISTAKES)
    np.savez(
        path,
        images=test.images[numbers],
        numbers=numbers,
        labels=test.labels[numbers],
        answers=probabilities[numbers].argmax(axis=1),
        confidence=probabilities[numbers].max(axis=1),
    )


def _float_operations(work: Work, path: Path, chosen: str) -> list[FloatOperation]:
    """What of a file stays float, as the stage `chosen` has it; "" if there is none."""
    if not chosen or RANGES not in work.done[chosen].files:
        return []
    return float_operations(work.done[chosen].directory, path, trust=work.context.trust_model)


def _macs(path: Path) -> int:
    """Of one inference, as far as its operations can be counted."""
    from emb.graph.cost import cost
    from emb.graph.files import read

    return cost(read(path)).macs


def _pixels(work: Work, stage: str) -> Pixels:
    return Pixels(**read_json(work.file(stage, "pixels.json")))


def answers_of(path: Path, work: Work) -> Callable[[Images], NDArray[np.float32]]:
    """What a float model says of raw images, by its own framework or, for a .tflite or .onnx file, by its runtime."""
    from emb.export.source import open_source
    from emb.runtimes import open_runtime

    pixels = PIXELS[work.context.recipe.input.pixels]
    source = open_source(path, trust=work.context.trust_model)

    def answer(images: Images) -> NDArray[np.float32]:
        # In batches of whole predict batches, as the images may be files that do not fit in memory.
        image_bytes = int(np.prod(images.shape[1:]))
        step = max(1, _PREDICT_BYTES // (256 * image_bytes)) * 256
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(images), step):
            scores = source.predict(images[start : start + step], pixels=pixels)
            if scores is None:
                break
            parts.append(scores)
        if parts:
            return np.concatenate(parts)
        with open_runtime("litert" if path.suffix == ".tflite" else "onnxruntime", model=path) as process:
            return process.scores(images, pixels=pixels)

    return answer


def _golden_images(test: Split) -> NDArray[np.uint8]:
    """The first images of the test split, one of each class in turn."""
    order = np.argsort(test.labels, kind="stable")
    starts = np.searchsorted(test.labels[order], test.labels[order])
    rank_in_class = np.arange(len(order)) - starts
    in_turn = order[np.lexsort((test.labels[order], rank_in_class))]
    golden: NDArray[np.uint8] = test.images[in_turn[:GOLDEN_IMAGES]]
    return golden
