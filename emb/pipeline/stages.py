"""The work of each stage: files in, files out. Decides neither order nor names; `plan` does.

File names inside an artifact are the same whatever the recipe is called, so that equal work has equal digests.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError
from emb.pipeline.pixels import PIXELS
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import keras

    from emb.export.source import Source

GOLDEN_IMAGES = 16


def write_json(path: Path, value: Any) -> None:
    """Indented, sorted, with a final newline: the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


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
        },
    )
    np.save(work.folder / "golden.npy", _golden_images(dataset.test))


def calibration(work: Work) -> None:
    """calibration.npy: train images, equally many of each class, uint8."""
    from emb.data import calibration_images

    recipe = work.context.recipe
    count, seed = recipe.quantize.calibration_images, recipe.train.seed
    np.save(work.folder / "calibration.npy", calibration_images(work.context.dataset, count=count, seed=seed))


def train(work: Work) -> None:
    """model.keras and history.json: the recipe's builder, trained."""
    from emb.zoo import ZOO

    recipe, dataset = work.context.recipe, work.context.dataset
    import keras

    # The weights are drawn from the recipe's seed, whatever ran before in this process.
    keras.utils.set_random_seed(recipe.train.seed)
    builder = ZOO.get(recipe.model.builder)
    arguments = dict(recipe.model.arguments)
    model = builder.build(input_shape=dataset.shape, classes=len(dataset.labels), **arguments)
    _fit(model, work, pixels=Pixels())


def tune(work: Work) -> None:
    """model.keras and history.json: somebody's own Keras model, trained on."""
    source = _open_own(work)
    if source.model is None:
        raise ModelError(
            f"{work.context.recipe.model.file} cannot be trained",
            why=f"emb trains Keras models; this is {source.kind}",
            fix="give the .keras or .h5 file, or leave the number of epochs out",
        )
    _fit(source.model, work, pixels=PIXELS[work.context.recipe.input.pixels])


def adopt(work: Work) -> None:
    """The user's own model as it is, once it was opened and found to fit; notes.json: what its user should know."""
    source = _open_own(work)
    write_json(work.folder / "notes.json", list(source.notes))
    path = Path(work.context.recipe.model.file)
    if path.is_dir():
        shutil.copytree(path, work.folder / "model")
    else:
        shutil.copyfile(path, work.folder / f"model{path.suffix.lower()}")


def export_float(work: Work, *, file_format: str, model: str) -> None:
    """model.<format>, the float32 file of the model, and pixels.json, how its input follows from a raw pixel."""
    from emb.export.source import open_source, without_softmax

    source = open_source(work.done["model"].directory / model, trust=work.context.trust_model)
    if work.context.recipe.export.softmax == "drop":
        source = without_softmax(source)
    wanted = PIXELS[work.context.recipe.input.pixels]
    pixels = source.write(work.folder / f"model.{file_format}", file_format=file_format, pixels=wanted)
    write_json(work.folder / "pixels.json", asdict(pixels))


def quantize(work: Work, *, file_format: str, scheme: Scheme, source: str) -> None:
    """model.<format> in another scheme, and pixels.json. source: the stage that made the float32 file."""
    from emb.quantize import quantize_onnx, quantize_tflite

    convert = {"tflite": quantize_tflite, "onnx": quantize_onnx}[file_format]
    convert(
        work.file(source, f"model.{file_format}"),
        work.folder / f"model.{file_format}",
        scheme=scheme,
        calibration=np.load(work.file("calibration", "calibration.npy")) if scheme.calibrated else None,
        method=work.context.recipe.quantize.calibration_method,
        pixels=_pixels(work, source),
    )
    shutil.copyfile(work.file(source, "pixels.json"), work.folder / "pixels.json")


def check(work: Work, *, file_format: str, scheme: Scheme, source: str) -> None:
    """graph.json: size, parameters, MACs and border of a file that obeys the rules. Raises ExportError otherwise."""
    from emb.graph.cost import cost
    from emb.graph.files import read
    from emb.graph.rules import check as violations_of
    from emb.pipeline.graphs import border, rules_for, scores_of

    path = work.file(source, f"model.{file_format}")
    graph = read(path)
    violations = violations_of(graph, rules_for(scheme, file_format=file_format))
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
        },
    )


def reference(work: Work, *, model: str) -> None:
    """The float model's own answers: scores.npy over the test split, golden.npy, and accuracy.json.

    A Keras model or SavedModel answers in its own framework, a .tflite or .onnx file on its runtime.
    """
    from emb.bench import top1

    test = work.context.dataset.test
    golden = np.load(work.file("data", "golden.npy"))
    answer = _answers_of(work.done["model"].directory / model, work)
    scores = answer(test.images)
    np.save(work.folder / "scores.npy", scores)
    np.save(work.folder / "golden.npy", answer(golden))
    write_json(work.folder / "accuracy.json", asdict(top1(scores, test.labels)))


def verify(work: Work, *, file_format: str, source: str, runtime: str, mode: str) -> None:
    """What a runtime answers: scores.npy over the test split, golden.npy (raw outputs), and verified.json.

    Raises RuntimeFailure if the runtime fails, ExportError if it answers otherwise when asked again.
    """
    from emb.bench import agreement, top1
    from emb.runtimes import open_runtime, to_input

    test = work.context.dataset.test
    pixels = _pixels(work, source)
    golden_images = np.load(work.file("data", "golden.npy"))
    path = work.file(source, f"model.{file_format}")
    with open_runtime(runtime, model=path, mode=mode) as process:
        golden_inputs = to_input(golden_images, process.input, pixels)
        golden = process.run_each(golden_inputs)
        scores = process.scores(test.images, pixels=pixels)
        again = process.run_each(golden_inputs)
    if golden.tobytes() != again.tobytes():
        raise ExportError(
            f"{runtime} ({mode}) does not give the same answer twice",
            why="its outputs for the golden images changed between two passes",
            fix="do not deploy this file on this runtime",
        )
    np.save(work.folder / "scores.npy", scores)
    np.save(work.folder / "golden.npy", golden)
    verified = asdict(top1(scores, test.labels))
    verified["agreement"] = agreement(scores, np.load(work.file("reference", "scores.npy")))
    write_json(work.folder / "verified.json", verified)


def measure(work: Work, *, file_format: str, source: str, runtime: str, mode: str) -> None:
    """latency.json: raw samples of single inferences on one thread, and the peak memory of the process."""
    from emb.pipeline.measuring import time_file

    timing = time_file(
        work.file(source, f"model.{file_format}"),
        np.load(work.file("data", "golden.npy")),
        runtime=runtime,
        mode=mode,
        threads=1,
        pixels=_pixels(work, source),
    )
    (work.folder / "latency.json").write_text(json.dumps(timing.to_json()), encoding="utf-8")


def _fit(model: keras.Model, work: Work, *, pixels: Pixels) -> None:
    from emb.train import train as fit

    dataset = work.context.dataset
    progress = work.folder / "progress"
    history = fit(
        model,
        train=dataset.train,
        validation=dataset.validation,
        spec=work.context.recipe.train,
        directory=progress,
        progress=work.context.listener.training,
        pixels=pixels,
    )
    model.save(work.folder / "model.keras")
    write_json(work.folder / "history.json", history.to_json())
    shutil.rmtree(progress, ignore_errors=True)


def _pixels(work: Work, stage: str) -> Pixels:
    return Pixels(**read_json(work.file(stage, "pixels.json")))


def _open_own(work: Work) -> Source:
    """The user's model. Raises ModelError if its number of classes is not that of the data."""
    from emb.export.source import open_source

    path = Path(work.context.recipe.model.file)
    source = open_source(path, trust=work.context.trust_model)
    labels = work.context.dataset.labels
    if source.classes != len(labels):
        raise ModelError(
            f"{path} gives {source.classes} scores; the data set {work.context.dataset.name} has {len(labels)} classes",
            why=f"the classes are {', '.join(labels[:12])}{', …' if len(labels) > 12 else ''}",
            fix="give the data that the model was made for, or a model with one score per class",
        )
    return source


def _answers_of(path: Path, work: Work) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    from emb.export.source import open_source
    from emb.runtimes import open_runtime

    pixels = PIXELS[work.context.recipe.input.pixels]
    source = open_source(path, trust=work.context.trust_model)

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = source.predict(images, pixels=pixels)
        if scores is not None:
            return scores
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
