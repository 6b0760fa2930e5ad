"""What pruning did, in lines of text: before and after, and what it does not change. Knows no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from emb.spec.pruned import Pruning, Unpruned
from emb.spec.pruning import SMALLER
from emb.spec.report import Row

_CHANGED = {
    "channels": "channels",
    "blocks": "MACs",
    "magnitude": "weights that are not 0",
    "cluster": "different weights",
}
_SHOWN = 4


def pruning_lines(pruning: Pruning, rows: Sequence[Row]) -> list[str]:
    """One fact a line. rows: of the pruned model, to hold beside the unpruned one's."""
    smaller = pruning.method in SMALLER
    lines = [_what(pruning), _accuracies(pruning)]
    if pruning.reached:
        lines.append(f"reached: {pruning.reached}")
    if pruning.unpruned:
        lines += _beside(pruning.unpruned, rows, smaller=smaller)
    if not smaller:
        lines.append(
            "the file's size, memory and speed are as without it: it saves what gzip makes of the file, no more"
        )
    if pruning.left_whole:
        named = [f"{layer} ({reason})" for layer, reason in pruning.left_whole.items()]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        lines.append(f"left whole: {'; '.join(named[:_SHOWN])}{more}")
    return lines


def layer_table(pruning: Pruning) -> list[str]:
    """A Markdown table of what became of each layer or group of tied layers."""
    lines = [f"| layers | {_CHANGED[pruning.method]} before | after |", "| --- | ---: | ---: |"]
    lines += [
        f"| {', '.join(layer.layers or (layer.name,))} | {layer.before:,} | {layer.after:,} |"
        for layer in pruning.layers
    ]
    return lines


def _what(pruning: Pruning) -> str:
    asked = f"pruned by {pruning.method} to {pruning.goal}"
    if pruning.criterion:
        asked += f" ({pruning.criterion}, {pruning.scope}, {_count(pruning.steps, 'step')})"
    if pruning.method == "magnitude":
        before = sum(layer.before for layer in pruning.layers)
        after = sum(layer.after for layer in pruning.layers)
        return f"{asked}: {after:,} weights are not 0, of {before:,} before"
    if pruning.method == "cluster":
        return f"{asked}: at most {max(layer.after for layer in pruning.layers)} different weights in a layer"
    return (
        f"{asked}: {pruning.macs_before:,} → {pruning.macs_after:,} MACs "
        f"({100 * (1 - pruning.macs_after / pruning.macs_before):.1f} % fewer), "
        f"{pruning.parameters_before:,} → {pruning.parameters_after:,} parameters"
    )


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def _accuracies(pruning: Pruning) -> str:
    tuned = ""
    if pruning.epochs:
        teacher = ", the unpruned model as teacher" if pruning.distilled else ""
        tuned = f", {100 * pruning.tuned_accuracy:.2f} % after {_count(pruning.epochs, 'epoch')} more{teacher}"
    return (
        f"on validation images: {100 * pruning.unpruned_accuracy:.2f} % unpruned, "
        f"{100 * pruning.pruned_accuracy:.2f} % when just pruned{tuned}"
    )


def _beside(unpruned: Unpruned, rows: Sequence[Row], *, smaller: bool) -> list[str]:
    """smaller: whether the file itself is; else neither its size nor its speed is a merit, nor named as one."""
    size = f"{unpruned.bytes:,} bytes, {unpruned.gzip_bytes:,} gzipped"
    lines = [
        f"unpruned, over the test images: float model {100 * unpruned.reference_accuracy:.2f} %; "
        f"{unpruned.scheme} .tflite {100 * unpruned.accuracy:.2f} %, {size}"
        + (f", {unpruned.median_us:,.0f} µs on litert" if smaller else "")
    ]
    same = (row for row in rows if row.format == "tflite" and row.scheme == unpruned.scheme and row.runtime == "litert")
    row = next((row for row in same if row.mode == "default" and row.accuracy is not None and row.latency), None)
    if row is None or row.accuracy is None or row.latency is None:
        return lines
    told = [f"{100 * (row.accuracy - unpruned.accuracy):+.2f} points"]
    told += [f"{unpruned.bytes / row.bytes:.2f}x smaller"] if smaller else []
    told += [f"{unpruned.gzip_bytes / row.gzip_bytes:.2f}x smaller gzipped"]
    told += [f"{unpruned.median_us / row.latency.median_us:.2f}x as fast"] if smaller else []
    return [*lines, f"against it: {', '.join(told)}"]
