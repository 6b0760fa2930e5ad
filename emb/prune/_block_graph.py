"""Which residual branches of a Keras model can go, so that what they are added to passes on alone. Imports no keras."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emb.errors import ModelError
from emb.prune._keras_graph import functional, nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """name: of the layer that adds the branch to the rest.  layers: those of the branch, in order of execution.

    stays: which input of the sum is left, 0 or 1.  last: the layer of the branch that the sum reads, and how many
    channels it makes.
    macs, weights: of the branch in a batch of one, and how many numbers its layers hold.
    """

    name: str
    layers: tuple[str, ...]
    stays: int
    last: str
    channels: int
    macs: int
    weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """found: in order of execution.  untouched: the other sums, and why their branches stay.

    macs: of the model's layers that multiply, by name.
    """

    found: tuple[Block, ...]
    macs: Mapping[str, int]
    untouched: Mapping[str, str]


class _CannotGoError(Exception):
    """The text says why."""


def blocks_of(model: Any) -> Blocks:
    """The residual branches of a functional keras.Model. Raises ModelError for a subclassed one, or one without any."""
    calls = _Calls(functional(model))
    costs = _macs_by_layer(model)
    found, untouched = [], {}
    for node in calls.sums():
        name = node.operation.name
        try:
            found.append(_block(calls, node, costs))
        except _CannotGoError as error:
            untouched[name] = str(error)
    if not found:
        reasons = "\n       ".join(f"{name}: {reason}" for name, reason in list(untouched.items())[:8])
        raise ModelError(
            f"{model.name} has no residual branch that can go",
            why=reasons or "none of its layers adds up two tensors",
            fix="prune its channels instead, or choose another architecture",
        )
    return Blocks(found=tuple(found), macs=costs, untouched=untouched)


class _Calls:
    """Who makes and who reads each tensor of a model. Keras's symbolic tensors are known by identity."""

    def __init__(self, function: Any) -> None:
        self.nodes = list(nodes(function))
        self.outputs = {id(value) for value in function.outputs}
        self._maker = {id(value): node for node in self.nodes for value in node.outputs}
        self._readers: dict[int, list[Any]] = {}
        self._times: dict[str, int] = {}
        for node in self.nodes:
            self._times[node.operation.name] = self._times.get(node.operation.name, 0) + 1
            for value in node.arguments.keras_tensors:
                self._readers.setdefault(id(value), []).append(node)

    def sums(self) -> Iterator[Any]:
        """The calls that add two tensors of one shape, by a layer or by `+`."""
        for node in self.nodes:
            kind, given = type(node.operation), node.arguments.keras_tensors
            is_sum = kind.__name__ == "Add" and kind.__module__.startswith("keras.")
            if is_sum and len(given) == 2 and given[0].shape == given[1].shape:
                yield node

    def behind(self, value: Any) -> list[Any]:
        """All calls that it takes to make a tensor, in order of execution; none for the model's input."""
        wanted, found = [value], set[int]()
        while wanted:
            node = self._maker.get(id(wanted.pop()))
            if node is not None and id(node) not in found:
                found.add(id(node))
                wanted += node.arguments.keras_tensors
        return [node for node in self.nodes if id(node) in found]

    def inputs(self, node: Any) -> Iterator[Any]:
        """What the call reads of the model's inputs."""
        return (value for value in node.arguments.keras_tensors if id(value) not in self._maker)

    def readers(self, node: Any) -> Iterator[Any]:
        """The calls that read what this one makes."""
        return (reader for value in node.outputs for reader in self._readers.get(id(value), ()))

    def is_shared(self, node: Any) -> bool:
        return self._times[node.operation.name] > 1

    def is_shown(self, node: Any) -> bool:
        """Whether the model shows what this call makes."""
        return any(id(value) in self.outputs for value in node.outputs)


def _block(calls: _Calls, node: Any, costs: Mapping[str, int]) -> Block:
    """The branch of a sum. Raises _CannotGoError."""
    reasons = []
    for stays, (kept, gone) in enumerate(_both_ways(node.arguments.keras_tensors)):
        try:
            branch = _branch(calls, node, kept, gone)
        except _CannotGoError as error:
            reasons.append(str(error))
            continue
        layers = [one.operation for one in branch]
        weights = sum(_size(layer) for layer in layers)
        if weights:
            return Block(
                name=node.operation.name,
                layers=tuple(layer.name for layer in layers),
                stays=stays,
                last=layers[-1].name,
                channels=branch[-1].outputs[0].shape[-1],
                macs=sum(costs.get(layer.name, 0) for layer in layers),
                weights=weights,
            )
        reasons.append("its branch holds no weights")
    raise _CannotGoError(next((reason for reason in reasons if reason != _NO_BRANCH), _NO_BRANCH))


_NO_BRANCH = "neither of its inputs is made from the other one: its shortcut has layers of its own"


def _branch(calls: _Calls, node: Any, kept: Any, gone: Any) -> list[Any]:
    """The calls that lead from `kept` to `gone` and nowhere else. Raises _CannotGoError."""
    own = {id(one) for one in calls.behind(kept)}
    branch = [one for one in calls.behind(gone) if id(one) not in own]
    if not branch or not any(value is kept for one in branch for value in one.arguments.keras_tensors):
        raise _CannotGoError(_NO_BRANCH)
    inside = {id(one) for one in branch}
    for one in branch:
        name = one.operation.name
        if any(value is not kept for value in calls.inputs(one)):
            raise _CannotGoError(f"its branch reads the model's input in {name}")
        if calls.is_shown(one) or any(id(reader) not in inside and reader is not node for reader in calls.readers(one)):
            raise _CannotGoError(f"what {name} makes is used outside of its branch, too")
        if len(one.outputs) > 1:
            raise _CannotGoError(f"{name} makes several tensors")
        if hasattr(one.operation, "layers"):
            raise _CannotGoError(f"{name} is a model inside of the model")
        if calls.is_shared(one):
            raise _CannotGoError(f"{name} is called in other places, too")
    if calls.is_shared(node):
        raise _CannotGoError("it adds in other places, too")
    return branch


def _both_ways(given: Sequence[Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    one, two = given
    return (one, two), (two, one)


def _size(layer: Any) -> int:
    return sum(math.prod(variable.shape) for variable in getattr(layer, "weights", ()))


def _macs_by_layer(model: Any) -> dict[str, int]:
    """By emb.graph.cost; an operation bears its layer's name, or that and a part's behind a slash."""
    from emb.graph.cost import operation_macs
    from emb.graph.keras import read

    graph, found = read(model), dict[str, int]()
    for operation in graph.operations:
        name = operation.name.split("/")[0]
        found[name] = found.get(name, 0) + (operation_macs(graph, operation) or 0)
    return found
