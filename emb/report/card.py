"""The model card of a build: what somebody must know who is handed its files and nothing else. Measures nothing.

Source of the sections: Mitchell et al. 2019, "Model cards for model reporting", as far as emb knows the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emb.report.columns import HEADERS, cells
from emb.report.tables import markdown_table
from emb.report.target import fault_lines, target_lines
from emb.spec.contract import Contract, ModelContract, Pixels, TensorContract
from emb.spec.recipe import Recipe
from emb.spec.report import Report

_METRICS = ("runtime", "accuracy %", "95 %", "agree %", "bytes", "median µs", "peak MB")
_LEFT_ALIGNED = 2  # the file and the runtime
_LABELS = 20


def render(report: Report, contract: Contract, recipe: Recipe, tools: Mapping[str, str]) -> str:
    """A page of Markdown. tools: name -> version of whatever made or ran the files."""
    parts = [
        ("", [f"# {report.directory.name}", "", *_opening(report, contract, recipe)]),
        ("Data", _list(_data(report, recipe))),
        ("Metrics", _metrics(report)),
        ("Input and output", _border(contract)),
        ("Limits", _list(_limits(report, contract))),
        *([(f"On {report.target.name}", _list(_target(report)))] if report.target else []),
        ("Made by", _list(_provenance(tools))),
        ("Files", _files(contract)),
    ]
    sections = [[*([f"## {title}", ""] if title else []), *lines] for title, lines in parts]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _opening(report: Report, contract: Contract, recipe: Recipe) -> list[str]:
    labels = ", ".join(contract.labels[:_LABELS])
    more = f" and {len(contract.labels) - _LABELS:,} more" if len(contract.labels) > _LABELS else ""
    model = recipe.model
    if model.file:
        source = f"The model is {model.file}, as it was given; emb converted it."
    else:
        arguments = ", ".join(f"{key} = {value}" for key, value in sorted(model.arguments.items()))
        began = f" It began with the weights {model.weights}." if model.weights else ""
        source = f"The network is emb's `{model.builder}`" + (f" with {arguments}" if arguments else "") + f".{began}"
    summary = [f"{recipe.summary}.", ""] if recipe.summary else []
    return [*summary, f"Classification of images into {len(contract.labels):,} classes: {labels}{more}.", "", source]


def _data(report: Report, recipe: Recipe) -> list[str]:
    data = report.data
    trained = f"{data.train_images:,} images of {data.name}"
    lines = [f"trained on {trained}, for {recipe.train.epochs} epochs at most"] if recipe.train.epochs else []
    if any("int8" in scheme or "int16" in scheme for scheme in recipe.quantize.schemes):
        lines.append(f"ranges of the integers from {recipe.quantize.calibration_images:,} of the train images")
    lines.append(f"judged by {data.test_images:,} test images, which neither emb's training nor the ranges saw")
    if recipe.model.file or recipe.model.weights:
        lines.append("what the model was trained on before it was given, emb does not know")
    return [*lines, f"sha256 of the data: `{data.digest}`"]


def _metrics(report: Report) -> list[str]:
    rows = [row for row in report.rows if row.mode == "default"]
    shown = [dict(zip(HEADERS, cells(row), strict=True)) for row in rows]
    lines = [(f"`{row.file}`", *(one[name] for name in _METRICS)) for row, one in zip(rows, shown, strict=True)]
    threads = sorted({row.latency.threads for row in rows if row.latency})
    count = f"{threads[0]} thread{'s' if threads[0] != 1 else ''}" if threads else ""
    return [
        *markdown_table(("file", *_METRICS), lines, left=_LEFT_ALIGNED),
        "",
        *_list(
            [
                f"float model: {100 * report.reference_accuracy:.2f} %",
                "agree: test images on which the file and the float model give the same class",
                *([f"times of one image on {count}, measured on {report.machine}"] if threads else []),
                *(f"{row.file} on {row.runtime}: {row.source}" for row in rows if not row.was_measured),
            ]
        ),
    ]


def _border(contract: Contract) -> list[str]:
    models = [
        (f"`{model.file}`", _tensor(model.input), _tensor(model.output), model.scores) for model in contract.models
    ]
    return [
        *markdown_table(("file", "input", "output", "scores"), models, left=4),
        "",
        *_list([_pixels_line(contract.pixels), f"channels: {contract.channel_order}", _scores_line(contract.models)]),
    ]


def _tensor(tensor: TensorContract) -> str:
    shape = "x".join(map(str, tensor.shape))
    if tensor.scale is None:
        return f"{tensor.dtype} {shape} {tensor.layout}"
    zero_point = tensor.zero_point or 0
    stored = "stored" if zero_point == 0 else f"(stored {'-' if zero_point > 0 else '+'} {abs(zero_point)})"
    return f"{tensor.dtype} {shape} {tensor.layout}, {stored} * {tensor.scale:.6g}"


def _pixels_line(pixels: Pixels) -> str:
    if pixels == Pixels():
        return "real input values are the camera's pixels, 0 to 255"
    return f"real input value = pixel * {pixels.scale:.6g} + {pixels.offset:.6g}, pixel in 0..255"


def _scores_line(models: Sequence[ModelContract]) -> str:
    if any(model.scores == "logits" for model in models):
        return "the class is that of the highest score; a softmax makes probabilities of logits"
    return "the class is that of the highest score"


def _limits(report: Report, contract: Contract) -> list[str]:
    lines = ["every image gets one of these classes, also one that shows none of them"]
    widths = [
        50 * (row.accuracy_high - row.accuracy_low)
        for row in report.rows
        if row.accuracy_high is not None and row.accuracy_low is not None
    ]
    if widths:
        lines.append(
            f"{report.data.test_images:,} test images tell an accuracy to within {max(widths):.2f} points (95 %), "
            "and say nothing of images that are unlike them"
        )
    for model in contract.models:
        if model.float_layers:
            lines.append(
                f"{model.file} computes {', '.join(model.float_layers)} in float32: not the same bits everywhere"
            )
    return [*lines, *report.notes, *(f"failed: {' '.join(error.split())}" for error in report.errors)]


def _target(report: Report) -> list[str]:
    assert report.target is not None
    return [line.strip() for line in (*target_lines(report.target), *fault_lines(report.target))]


def _provenance(tools: Mapping[str, str]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(tools.items()) if version != "absent")
    return [versions, "`manifest.json` holds the recipe, and for each step its inputs, tools and code, as sha256"]


def _files(contract: Contract) -> list[str]:
    rows = [(f"`{model.file}`", f"`{model.sha256}`") for model in contract.models]
    return markdown_table(("file", "sha256"), rows, left=2)


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines if line]
