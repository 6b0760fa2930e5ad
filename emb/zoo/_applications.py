"""Carries the weights of one Keras model over to another of the same architecture. Knows no architecture, no file.

The source is a model of keras.applications or one that emb itself has trained. Layers are matched by their place in
the graph, never by their names: both graphs are walked from the output back, the inputs of a sum or a concatenation in
their order, so layers without weights may differ (an activation of its own or inside of the convolution).
A convolution in groups counts as one convolution for each group, which is what some networks split it into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emb.errors import ModelError
from emb.graph.keras import read
from emb.graph.model import Graph

if TYPE_CHECKING:
    import keras

# A batch normalization without scale or shift is one whose scale is 1 and whose shift is 0.
_IMPLIED = {"gamma": 1.0, "beta": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted:
    """A layer that holds weights, or the part of one that belongs to a group of channels.

    normalized_by: the batch normalization that alone takes its output, if one does.
    group: counted from 0, of `groups`, into which the output's channels, the last axis of every weight, fall.
    """

    layer: Any
    normalized_by: str | None
    group: int = 0
    groups: int = 1

    @property
    def key(self) -> tuple[str, int]:
        return self.layer.name, self.group

    @property
    def kind(self) -> str:
        name = type(self.layer).__name__
        return "Conv2D" if name == "GroupedConv2D" else name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {variable.name: tuple(variable.shape) for variable in self.layer.weights}
        if self.groups == 1:
            return shapes
        return {name: (*shape[:-1], shape[-1] // self.groups) for name, shape in shapes.items()}

    @property
    def values(self) -> dict[str, Any]:
        """Arrays of these shapes."""
        return {variable.name: _numpy(variable)[self._channels(variable)] for variable in self.layer.weights}

    def assign(self, values: dict[str, Any]) -> None:
        """Take over arrays of these shapes; the weights of other groups stay what they are."""
        for variable in self.layer.weights:
            value = values[variable.name]
            if self.groups > 1:
                whole = _numpy(variable).copy()
                whole[self._channels(variable)] = value
                value = whole
            variable.assign(value)

    def _channels(self, variable: Any) -> Any:
        """The index of this group's part."""
        if self.groups == 1:
            return ...
        count = variable.shape[-1] // self.groups
        return ..., slice(self.group * count, (self.group + 1) * count)

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        part = f", group {self.group + 1} of {self.groups}" if self.groups > 1 else ""
        return f"{self.layer.name} ({type(self.layer).__name__}{part}: {shapes})"


def carry_over(
    source: keras.Model, target: keras.Model, *, skip_head: bool = False, reverse_channels: bool = False
) -> None:
    """Give `target` the weights of `source`, a model of the same architecture; its own are untouched if one is amiss.

    A convolution's bias that `target` lacks is folded into the moving mean of the batch normalization behind it, and
    a scale or shift that `source` lacks becomes 1 or 0, which changes no output.
    skip_head: all but the last dense layer, for other classes; `source` may come without it.
    reverse_channels: the first kernel's input channels are turned around, for weights that were trained on BGR.

    Raises ModelError that names the first layer that does not fit.
    """
    ours, theirs = _by_groups(_weighted(target)), _by_groups(_weighted(source))
    if skip_head:
        ours, theirs = _without_head(ours), _without_head(theirs)
    _check(ours, theirs, source=source.name, target=target.name)
    if reverse_channels:
        _check_first(ours, target=target.name)

    biases: dict[tuple[str, int], Any] = {}  # by the key of the batch normalization of `target` that takes them
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        values = _values(mine, other)
        if mine.key in biases:
            values["moving_mean"] = values["moving_mean"] - biases.pop(mine.key)
        if reverse_channels and place == 0:
            values["kernel"] = values["kernel"][:, :, ::-1, :]
        if _folds_bias(mine, other):
            biases[str(mine.normalized_by), mine.group] = other.values["bias"]
        mine.assign(values)


def _by_groups(layers: Iterable[_Weighted]) -> list[_Weighted]:
    """Each convolution in groups as one for each group, its batch normalization behind it divided likewise."""
    parts: list[_Weighted] = []
    found = list(layers)
    while found:
        run = [found.pop(0)]
        groups = run[0].layer.groups if run[0].kind == "Conv2D" else 1
        if groups > 1 and found and found[0].layer.name == run[0].normalized_by:
            run.append(found.pop(0))
        parts += [replace(one, group=group, groups=groups) for group in range(groups) for one in run]
    return parts


def _weighted(model: keras.Model) -> Iterator[_Weighted]:
    """The layers with weights, each after those that it takes its input from."""
    graph = read(model)
    layers = {layer.name: layer for layer in _layers(model)}
    consumers = _consumers(graph)
    seen: set[str] = set()
    for number in _from_the_output_back(graph):
        operation = graph.operations[number]
        name = operation.name.removesuffix("/depthwise").removesuffix("/pointwise")
        layer = layers.get(name)
        if layer is None or name in seen or not layer.weights:
            continue
        seen.add(name)
        takers = [consumer for output in operation.outputs for consumer in consumers.get(output, ())]
        shown = not set(operation.outputs).isdisjoint(graph.outputs)
        alone = graph.operations[takers[0]] if len(takers) == 1 and not shown else None
        normalized = alone is not None and alone.native == "BatchNormalization"
        yield _Weighted(layer=layer, normalized_by=alone.name if alone and normalized else None)


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _consumers(graph: Graph) -> dict[int, list[int]]:
    """The operations that take a tensor, by the tensor's index."""
    consumers: dict[int, list[int]] = {}
    for number, operation in enumerate(graph.operations):
        for value in operation.inputs:
            consumers.setdefault(value, []).append(number)
    return consumers


def _from_the_output_back(graph: Graph) -> Iterator[int]:
    """The operations, depth first: what an operation takes comes before it, its first input's first."""
    maker = {output: number for number, operation in enumerate(graph.operations) for output in operation.outputs}
    done: set[int] = set()
    # Not recursive: DenseNet-264 is deeper than Python's stack.
    stack = [(maker[value], False) for value in reversed(graph.outputs) if value in maker]
    while stack:
        number, ready = stack.pop()
        if number in done:
            continue
        if ready:
            done.add(number)
            yield number
            continue
        stack.append((number, True))
        inputs = graph.operations[number].inputs
        stack += [(maker[value], False) for value in reversed(inputs) if value in maker]


def _without_head(layers: list[_Weighted]) -> list[_Weighted]:
    return layers[:-1] if layers and type(layers[-1].layer).__name__ == "Dense" else layers


def _check(ours: list[_Weighted], theirs: list[_Weighted], *, source: str, target: str) -> None:
    for mine, other in zip(ours, theirs, strict=False):
        if fault := _misfit(mine, other):
            raise _another_architecture(f"{mine} is the first that does not fit: {fault}", source, target)
    if len(ours) > len(theirs):
        why = f"{ours[len(theirs)]} is the first that finds nothing: {source} has {len(theirs)} layers with weights"
        raise _another_architecture(why, source, target)
    if len(theirs) > len(ours):
        why = f"{target} has {len(ours)} layers with weights; {theirs[len(ours)]} of {source} is left over"
        raise _another_architecture(why, source, target)


def _another_architecture(why: str, source: str, target: str) -> ModelError:
    return ModelError(
        f"weights of another architecture: those of {source} do not fit {target}",
        why=why,
        fix="give weights of the same architecture, made with the same arguments, input channels and classes",
    )


def _misfit(mine: _Weighted, other: _Weighted) -> str:
    """Why the one layer cannot have the other's weights, or nothing."""
    there = f"there stands {other}"
    if mine.kind != other.kind:
        return there
    ours, theirs = mine.shapes, other.shapes
    if any(name in theirs and theirs[name] != ours[name] for name in ours):
        return there
    implied = _IMPLIED if "moving_mean" in ours else {}
    if any(name not in theirs and name not in implied for name in ours):
        return there
    if any(name not in ours and not (name == "bias" and _folds_bias(mine, other)) for name in theirs):
        return there
    epsilons = [getattr(layer, "epsilon", None) for layer in (mine.layer, other.layer)]
    if epsilons[0] != epsilons[1]:
        return f"its epsilon is {epsilons[0]}, that of {other.layer.name} {epsilons[1]}"
    return ""


def _folds_bias(mine: _Weighted, other: _Weighted) -> bool:
    if "bias" not in other.shapes or "bias" in mine.shapes:
        return False
    return mine.normalized_by is not None and other.normalized_by is not None


def _check_first(ours: list[_Weighted], *, target: str) -> None:
    kernel = ours[0].shapes.get("kernel", ()) if ours else ()
    if len(kernel) != 4 or kernel[2] != 3:
        raise ModelError(
            f"the channels of {target} cannot be turned around",
            why=f"its first layer is {ours[0]}, no convolution of three" if ours else "it has no layer with weights",
            fix="give the weights to a model of three input channels",
        )


def _values(mine: _Weighted, other: _Weighted) -> dict[str, Any]:
    import numpy as np

    theirs = other.values
    return {
        name: theirs[name] if name in theirs else np.full(shape, _IMPLIED[name], np.float32)
        for name, shape in mine.shapes.items()
    }


def _numpy(variable: Any) -> Any:
    from keras import ops

    return ops.convert_to_numpy(variable)
