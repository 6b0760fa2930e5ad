"""Says which Keras layers an exported file's operations compute. Knows no weights and runs nothing.

TensorFlow calls an operation after the scope of its layer, `model_1/conv1_1/Relu`. Keras opens a layer's scope twice,
once to look at it and once to call it, and TensorFlow tells the second from the first by a number: this is `conv1`.
A converter that fuses operations joins their names by semicolons, and calls the last one after the model's output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from emb.graph.model import ABSENT, Graph, consumers, producers
from emb.graph.vocabulary import PRODUCTS

_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNames:
    """What an operation computes. name: the layer whose values or weights count; of several, the first of the model.

    folded: other layers that are part of the operation, in the model's order: what was folded into its weights or
    fused behind it, and what does nothing in inference.
    """

    name: str
    folded: tuple[str, ...] = ()


def layer_names(graph: Graph, model: Graph) -> tuple[LayerNames | None, ...]:
    """For each operation of a file that was exported from a Keras model, its layers; None where it has none.

    model: the graph of the Keras model, as `emb.graph.keras.read` gives it. Every layer of the model that computes
    something in inference, or was folded into one that does, is part of at least one operation.
    """
    order = {_layer(operation.name): place for place, operation in enumerate(model.operations)}
    named = [_named(operation.name, order) for operation in graph.operations]
    _name_outputs(named, graph, model)
    for layer, place in _folded(model, named).items():
        named[place].add(layer)
    weighty = {_layer(operation.name) for operation in model.operations if operation.kind in PRODUCTS}
    own = [_named(operation.name, order) for operation in graph.operations]
    found = []
    for place, layers in enumerate(named):
        candidates = own[place] or layers
        chosen = min(candidates & weighty or candidates, key=order.__getitem__, default=None)
        rest = tuple(sorted(layers - {chosen}, key=order.__getitem__))
        found.append(None if chosen is None else LayerNames(name=chosen, folded=rest))
    return tuple(found)


def _layer(name: str) -> str:
    """A separable convolution is two operations, conv/depthwise and conv/pointwise."""
    return name.split("/")[0]


def _named(name: str, known: Mapping[str, int]) -> set[str]:
    """The known layers in whose scopes the parts of an operation's name lie, the innermost of each part."""
    found = set()
    for part in name.split(";"):
        for scope in reversed(part.split("/")[:-1]):
            # Without the number first: conv_1 is the second scope of conv, and conv_1's own is conv_1_1.
            layer = next((one for one in (_NUMBER.sub("", scope), scope) if one in known), None)
            if layer is not None:
                found.add(layer)
                break
    return found


def _name_outputs(named: list[set[str]], graph: Graph, model: Graph) -> None:
    """What writes the file's output has lost its name; it belongs to the layer that gives the model's output."""
    written, made = producers(graph), producers(model)
    for output, result in zip(graph.outputs, model.outputs, strict=False):
        if output in written and result in made and not named[written[output]]:
            named[written[output]].add(_layer(model.operations[made[result]].name))


def _folded(model: Graph, named: Iterable[set[str]]) -> dict[str, int]:
    """Layers that no operation is called after -> the operation that they are part of."""
    places = {layer: place for place, layers in enumerate(named) for layer in layers}
    written, read = producers(model), consumers(model)
    found: dict[str, int] = {}
    for number, operation in enumerate(model.operations):
        layer = _layer(operation.name)
        if layer in places:
            continue
        before = _before(model, number, written)
        place = places.get(before, found.get(before)) if before else None
        if place is None:
            place = _after(model, number, read, places)
        if place is not None:
            found[layer] = place
    return found


def _before(model: Graph, number: int, written: Mapping[int, int]) -> str | None:
    """The layer that a layer reads; None if it reads the image or several."""
    sources = {written[index] for index in model.operations[number].inputs if index != ABSENT and index in written}
    return _layer(model.operations[sources.pop()].name) if len(sources) == 1 else None


def _after(model: Graph, number: int, read: Mapping[int, tuple[int, ...]], places: Mapping[str, int]) -> int | None:
    """The next operation on the way from a layer to the output, breadth first."""
    waiting, seen = [number], {number}
    while waiting:
        current = waiting.pop(0)
        layer = _layer(model.operations[current].name)
        if layer in places:
            return places[layer]
        following = {one for index in model.operations[current].outputs for one in read.get(index, ())} - seen
        seen |= following
        waiting += sorted(following)
    return None
