"""Which channels of a functional Keras model can only go together, and what has to be cut for each.

Walks through the layers in their order of execution and applies the rule of each; decides nothing. Imports no keras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ModelError
from emb.prune._channel_rules import Axes, Call, Effect, NoRuleError, Setting, rule_for
from emb.prune._keras_graph import functional, nodes
from emb.prune._ties import Channels, Ties

Kept = NDArray[np.bool_]
"""For each channel of a model, by its number, whether it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChannels:
    """What a layer holds for each channel. weights, settings, filters, makes, scale: see Effect.

    results: the channels of each output of its first call.
    """

    results: tuple[Channels, ...]
    weights: Mapping[str, Axes]
    settings: tuple[Setting, ...] = ()
    filters: tuple[str, int] | None = None
    makes: bool = False
    scale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Channels that one layer makes before any other, and all that is tied to them.

    name: that layer's.  decisions: the number of each bundle of tied channels.  channels: for each decision, which
    channels of the layer `name` it is about.  layers: all whose channels they are, in order of execution.
    """

    name: str
    decisions: Channels
    channels: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGraph:
    """layers: by name, those with a rule.  calls: (layer, which of its calls, from 0) -> the channels of each output.

    groups: all that can be decided, in order of execution.  untouched: layer -> why all or some of it stays.
    count: channels and numbers from 0, of which those that are tied share one.
    """

    layers: Mapping[str, LayerChannels]
    calls: Mapping[tuple[str, int], tuple[Channels, ...]]
    groups: tuple[Group, ...]
    untouched: Mapping[str, str]
    count: int

    def everything(self) -> Kept:
        return np.ones(self.count, dtype=np.bool_)


def trace(model: Any) -> ChannelGraph:
    """The channels of a functional or Sequential keras.Model. Raises ModelError for a subclassed one."""
    walk = _Walk()
    walk.run(functional(model))
    return walk.finish()


def prunable(model: Any) -> ChannelGraph:
    """`trace`, if any channel can go. Raises ModelError that names what stands in the way otherwise."""
    graph = trace(model)
    if not graph.groups:
        reasons = [f"{name}: {reason}" for name, reason in graph.untouched.items()]
        raise ModelError(
            f"no channel of {model.name} can be pruned",
            why="\n       ".join(reasons[:8]) or "no layer makes channels but the one of the classes",
            fix="prune its weights one by one instead, or choose another architecture",
        )
    return graph


class _Walk:
    """A model while it is walked through. Keras's symbolic tensors are known by identity."""

    def __init__(self) -> None:
        self._ties = Ties()
        self._tensors: dict[int, Channels] = {}
        self._effects: dict[str, Effect] = {}
        self._calls: dict[tuple[str, int], tuple[Channels, ...]] = {}
        self._counts: dict[str, int] = {}
        self._without_rule: dict[str, str] = {}  # layers that hold weights
        self._shown: set[int] = set()

    def run(self, function: Any) -> None:
        for value in function.inputs:
            self._tensors[id(value)] = self._fresh(value, "they are the model's input")
        for node in nodes(function):
            if any(id(value) not in self._tensors for value in node.outputs):
                self._call(node)
        for value in function.outputs:
            self._ties.leave_whole(self._tensors[id(value)], "they are the model's output")
            self._shown.update(self._tensors[id(value)].tolist())

    def _call(self, node: Any) -> None:
        layer, sources = node.operation, node.arguments.keras_tensors
        given = tuple(self._tensors[id(value)] for value in sources)
        call = Call(
            layer=layer,
            given=given,
            input_shapes=tuple(tuple(value.shape) for value in sources),
            output_shapes=tuple(tuple(value.shape) for value in node.outputs),
        )
        try:
            results = self._apply(call)
        except NoRuleError as error:
            self._stop(layer, given, str(error))
            reason = f"they come from {layer.name}: {error}"
            results = tuple(self._fresh(value, reason) for value in node.outputs)
        for value, channels in zip(node.outputs, results, strict=True):
            self._tensors[id(value)] = channels
        number = self._counts.get(layer.name, 0)
        self._counts[layer.name] = number + 1
        self._calls[layer.name, number] = results

    def _apply(self, call: Call) -> tuple[Channels, ...]:
        rule = rule_for(call.layer)
        shapes = (*call.input_shapes, *call.output_shapes)
        if any(len(shape) < 2 or shape[-1] is None for shape in shapes):
            raise NoRuleError("the number of its channels is open")
        effect = rule(call, self._ties)
        unknown = [weight.name for weight in call.layer.weights if weight.name not in effect.weights]
        if unknown:
            raise NoRuleError(f"emb knows no rule for its weight {unknown[0]}")
        before = self._effects.setdefault(call.layer.name, effect)
        if before is not effect:
            self._share(before, effect)
        return effect.results

    def _share(self, first: Effect, again: Effect) -> None:
        """A layer that is called again has one set of weights and settings for all calls."""
        pairs = [(first.weights[name], again.weights[name]) for name in first.weights]
        axes = [(one, two) for of_one, of_two in pairs for one, two in zip(of_one, of_two, strict=True)]
        axes += [(one.channels, two.channels) for one, two in zip(first.settings, again.settings, strict=True)]
        for one, two in axes:
            if one is None or two is None:
                continue
            if len(one) != len(two):
                raise NoRuleError("it is called for different numbers of channels")
            self._ties.tie(one, two)

    def _stop(self, layer: Any, given: tuple[Channels, ...], why: str) -> None:
        for channels in given:
            self._ties.leave_whole(channels, f"they reach {layer.name}: {why}")
        before = self._effects.pop(layer.name, None)
        for channels in before.results if before is not None else ():
            self._ties.leave_whole(channels, f"they come from {layer.name}: {why}")
        if getattr(layer, "weights", ()):
            self._without_rule[layer.name] = why

    def _fresh(self, value: Any, reason: str) -> Channels:
        """The channels of a tensor that stay, whatever happens; none where their number is open."""
        extent = value.shape[-1] if len(value.shape) > 1 else None
        channels = self._ties.new(extent or 0)
        self._ties.leave_whole(channels, reason)
        return channels

    def finish(self) -> ChannelGraph:
        layers = {name: self._resolved(effect) for name, effect in self._effects.items()}
        calls = {key: tuple(map(self._ties.roots, results)) for key, results in self._calls.items()}
        return ChannelGraph(
            layers=layers,
            calls=calls,
            groups=tuple(self._groups(layers)),
            untouched={**self._without_rule, **dict(self._whole(layers))},
            count=self._ties.count,
        )

    def _resolved(self, effect: Effect) -> LayerChannels:
        roots = self._ties.roots
        return LayerChannels(
            results=tuple(map(roots, effect.results)),
            weights={
                name: tuple(None if axis is None else roots(axis) for axis in axes)
                for name, axes in effect.weights.items()
            },
            settings=tuple(
                Setting(name=setting.name, channels=roots(setting.channels), how=setting.how)
                for setting in effect.settings
            ),
            filters=effect.filters,
            makes=effect.makes,
            scale=effect.scale,
        )

    def _groups(self, layers: Mapping[str, LayerChannels]) -> Iterator[Group]:
        holders: dict[int, list[str]] = {}
        for name, layer in layers.items():
            if layer.filters is not None:
                for root in dict.fromkeys(layer.results[0].tolist()):
                    holders.setdefault(root, []).append(name)
        seen: set[int] = set()
        for name, layer in layers.items():
            if not layer.makes:
                continue
            places: dict[int, list[int]] = {}
            for place, root in enumerate(layer.results[0].tolist()):
                if root not in seen and not self._ties.reason(root):
                    places.setdefault(root, []).append(place)
            seen.update(places)
            if places:
                yield Group(
                    name=name,
                    decisions=np.array(list(places), dtype=np.int64),
                    channels=tuple(map(tuple, places.values())),
                    layers=tuple(dict.fromkeys(holder for root in places for holder in holders[root])),
                )

    def _whole(self, layers: Mapping[str, LayerChannels]) -> Iterator[tuple[str, str]]:
        """The layers that make channels which stay, but for the one whose own are the model's output."""
        for name, layer in layers.items():
            if not layer.makes or self._shown.issuperset(self._effects[name].results[0].tolist()):
                continue
            roots = layer.results[0].tolist()
            reasons = [reason for root in roots if (reason := self._ties.reason(root))]
            if reasons:
                share = "its channels" if len(reasons) == len(roots) else f"{len(reasons)} of its {len(roots)} channels"
                yield name, f"{share} stay: {reasons[0]}"
