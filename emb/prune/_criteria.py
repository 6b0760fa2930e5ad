"""What each decision about channels is worth, by four criteria. Decides nothing. Imports keras inside of functions.

| criterion | worth of a channel in one layer | source |
|---|---|---|
| l1 | sum of the filter's absolute weights | Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1 |
| l2 | root of the sum of their squares | He et al. 2018, "Soft filter pruning", section 3.2 |
| bn-scale | absolute scale of the batch normalization | Liu et al. 2017, "Network slimming", section 3.3 |
| taylor | mean over images of abs(sum over positions of gradient * activation) | Molchanov et al. 2017, section 2.2 |

A filter's weights are those of its kernel, without the bias. A decision about tied channels is worth the sum over the
layers that it is about. With l1 and l2 a layer's filters are first divided by their mean: behind a batch normalization
the size of a whole layer's weights means nothing, and in a sum the layer with the largest ones would decide alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from emb.errors import DataError, SpecError
from emb.prune._channel_graph import ChannelGraph
from emb.prune._dense_layers import dense_layers
from emb.prune._surgery import numbers, with_masks
from emb.prune._ties import Channels
from emb.spec.contract import Pixels
from emb.spec.dataset import Images

if TYPE_CHECKING:
    import keras

Criterion = Literal["l1", "l2", "bn-scale", "taylor"]
Worth = NDArray[np.float64]
"""For each channel of a model, by its number; NaN where the criterion says nothing."""

# Molchanov et al. 2017 take batches of 32; no more images than this are looked at.
_BATCH, _MOST_IMAGES = 32, 512


def worth_of_weights(model: keras.Model, graph: ChannelGraph, *, criterion: Criterion) -> Worth:
    """l1, l2 and bn-scale."""
    worth = np.full(graph.count, np.nan)
    for layer in model.layers:
        for channels, values in _in_layer(layer, graph, criterion):
            worth[channels] = np.nan_to_num(worth[channels])
            np.add.at(worth, channels, values)
    return worth


def _in_layer(layer: keras.Layer, graph: ChannelGraph, criterion: Criterion) -> Iterator[tuple[Channels, Worth]]:
    """The worth of each of the layer's filters or scales, and which channels they are of."""
    holds = graph.layers.get(layer.name)
    if holds is None:
        return
    variables = {variable.name: variable for variable in layer.weights}
    if criterion == "bn-scale":
        if holds.scale:
            yield holds.results[0], np.abs(numbers(variables[holds.scale]).astype(np.float64))
        return
    if holds.filters is None:
        return
    name, axis = holds.filters
    channels = holds.weights[name][axis]
    assert channels is not None  # the axis of the filters has channels
    yield channels, _sizes(numbers(variables[name]), axis, criterion)


def _sizes(kernel: NDArray[Any], axis: int, criterion: Criterion) -> Worth:
    """Of the kernel's slices along that axis, by l1 or l2, divided by their mean."""
    others = tuple(place for place in range(kernel.ndim) if place != axis)
    if criterion == "l1":
        sizes = np.abs(kernel).sum(others, dtype=np.float64)
    else:
        sizes = np.sqrt(np.square(kernel).sum(others, dtype=np.float64))
    return sizes / (sizes.mean() or 1.0)


def worth_of_dense_layers(
    model: keras.Model, graph: ChannelGraph, worth: Worth, *, criterion: Criterion
) -> dict[str, float]:
    """What each group that can go as a whole, see emb.prune._dense_layers, is worth beside the others of the kind.

    By bn-scale and taylor the sum of what its channels are worth. By l1 and l2, where each layer's own filters are
    worth 1 on average, how large the weights are by which others read them, as a share of those by which they read the
    rest, in the mean over those others (Huang et al. 2017, "Densely connected convolutional networks", figure 5).
    """
    groups = {group.name: group.decisions for group in graph.groups}
    if criterion in ("l1", "l2"):
        worth = _as_read(model, graph, criterion)
        return {name: float(worth[groups[name]].mean()) for name in dense_layers(graph)}
    return {name: float(worth[groups[name]].sum()) for name in dense_layers(graph)}


def _as_read(model: keras.Model, graph: ChannelGraph, criterion: Criterion) -> Worth:
    """For each channel how large the weights are by which layers read it, beside the rest of theirs; 0 if none does."""
    shares, times = np.zeros(graph.count), np.zeros(graph.count)
    for layer in model.layers:
        holds = graph.layers.get(layer.name)
        if holds is None or not holds.makes or holds.filters is None:
            continue
        weight, filters = holds.filters
        kernel = next(variable for variable in layer.weights if variable.name == weight)
        axis, channels = next(
            (place, channels)
            for place, channels in enumerate(holds.weights[weight])
            if channels is not None and place != filters
        )
        np.add.at(shares, channels, _sizes(numbers(kernel), axis, criterion))
        np.add.at(times, channels, 1)
    return shares / np.maximum(times, 1)


def worth_by_taylor(
    model: keras.Model,
    graph: ChannelGraph,
    *,
    images: Images,
    labels: NDArray[np.integer[Any]],
    pixels: Pixels,
    rng: np.random.Generator | None,
) -> Worth:
    """How much the loss would change, to first order, if a channel were zero; mean over images, in units of the loss.

    images: (images, height, width, channels) raw pixels.  labels: (images,) classes.  pixels: what the model takes.
    Where a batch normalization alone takes what a layer makes, its outputs are the activations; else the layer's own.
    """
    _check_images(images, labels)
    order = np.arange(len(images)) if rng is None else rng.permutation(len(images))
    chosen = np.sort(order[:_MOST_IMAGES])
    masked, masks = with_masks(model, _gates(model, graph), examples=_BATCH, dropout=False)
    given = images[chosen].astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
    sums = _absolute_gradients(masked, masks, given, labels[chosen])
    worth = np.full(graph.count, np.nan)
    for (_, channels), values in zip(masks, sums, strict=True):
        worth[channels] = np.nan_to_num(worth[channels])
        np.add.at(worth, channels, values / len(chosen))
    return worth


def _gates(model: keras.Model, graph: ChannelGraph) -> dict[tuple[str, int], tuple[Channels | None, ...]]:
    """Behind every layer that makes channels, or the batch normalization that alone takes them."""
    from emb.graph.keras import read

    read_graph = read(model)
    takers: dict[int, list[str]] = {}
    for operation in read_graph.operations:
        for index in operation.inputs:
            takers.setdefault(index, []).append(operation.name)
    behind = {operation.name: takers.get(operation.outputs[0], []) for operation in read_graph.operations}
    gates: dict[tuple[str, int], tuple[Channels | None, ...]] = {}
    for name, holds in graph.layers.items():
        if holds.filters is None:
            continue
        next_ones = behind.get(name, behind.get(f"{name}/pointwise", []))
        alone = len(next_ones) == 1 and next_ones[0] in graph.layers and graph.layers[next_ones[0]].scale
        gates[next_ones[0] if alone else name, 0] = (holds.results[0],)
    return gates


def _absolute_gradients(
    masked: keras.Model,
    masks: tuple[tuple[keras.Layer, Channels], ...],
    images: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
) -> list[Worth]:
    """For each mask the sum over all images of the absolute gradient of the image's loss, (channels,)."""
    import keras

    from emb.prune._gradient_sums import GradientSums

    optimizer = GradientSums()
    # Outputs that help in training alone come behind the first.
    trained = keras.Model(masked.inputs[0] if len(masked.inputs) == 1 else masked.inputs, masked.outputs[0])
    trained.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=not _gives_probabilities(trained), reduction="sum"),
        # As in training: XLA on a CPU makes TensorFlow's steps of such small models slower.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    for start in range(0, len(images), _BATCH):
        part, classes = images[start : start + _BATCH], labels[start : start + _BATCH]
        filling = np.arange(_BATCH) % len(part)  # the last batch is filled up with images that weigh nothing
        weights = (np.arange(_BATCH) < len(part)).astype(np.float32)
        trained.train_on_batch(part[filling], classes[filling], sample_weight=weights)
    by_variable = optimizer.by_variable()
    # What only another output reads changes nothing of the first.
    return [by_variable.get(id(layer.mask), np.zeros(len(channels))) for layer, channels in masks]


def _gives_probabilities(model: keras.Model) -> bool:
    last = model.outputs[0]._keras_history.operation
    if type(last).__name__ == "ChannelMask":
        last = last.input._keras_history.operation
    return type(last).__name__ == "Softmax" or getattr(getattr(last, "activation", None), "__name__", "") == "softmax"


def _check_images(images: Images, labels: NDArray[np.integer[Any]]) -> None:
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(
            f"the criterion taylor got {len(images):,} images and {len(labels):,} labels",
            why="it needs the gradients of the loss on train images",
            fix="give as many labels as images, and at least one",
        )


def check_needs(criterion: Criterion, *, images: object, labels: object) -> None:
    """Raises SpecError if the criterion looks at images and has none."""
    if criterion == "taylor" and (images is None or labels is None):
        raise SpecError(
            "the criterion taylor needs images and labels",
            why="it looks at the gradients of the loss, where the others look at weights alone",
            fix="give train images with their labels, or choose l1, l2 or bn-scale",
        )
