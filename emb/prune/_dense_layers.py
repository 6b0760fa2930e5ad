"""Which groups of channels a network can do without altogether, as a DenseNet can without one of its layers.

Whoever reads them reads all that they are made of as well, and goes on with that, which is at least twice as many
channels: one layer of many, and not the lower half of a U-Net, whose result stands beside as many that passed it by.
Knows no layer's kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emb.prune._channel_graph import ChannelGraph, LayerChannels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Makers:
    """Of the layers that make channels, by name, which those are and of which they make them.

    of: for each group, in the graph's order, which layers make any of its channels.  readers: which ones read any.
    """

    made: Mapping[str, frozenset[int]]
    read: Mapping[str, frozenset[int]]
    of: tuple[frozenset[str], ...]
    readers: tuple[frozenset[str], ...]


def dense_layers(graph: ChannelGraph) -> dict[str, tuple[int, ...]]:
    """Group -> all decisions that go with it if it goes as a whole: its own, and what is made for it alone.

    The groups without which the network does not go on are missing.
    """
    groups = [frozenset(group.decisions.tolist()) for group in graph.groups]
    makers = _makers(graph, groups)
    found: dict[str, frozenset[int]] = {}
    for place, group in enumerate(graph.groups):
        gone, gone_makers = _made_for(place, groups, makers)
        sources = {channel for name in gone_makers for channel in makers.read[name]} - gone
        goes_on = all(sources <= makers.read[name] for name in makers.readers[place] - gone_makers)
        is_one_of_many = len(sources) >= 2 * len(groups[place])
        if goes_on and is_one_of_many and all(makers.made[name] <= gone for name in gone_makers):
            found[group.name] = gone
    # What has such a layer inside is more than one.
    return {
        name: tuple(sorted(gone)) for name, gone in found.items() if not any(other < gone for other in found.values())
    }


def _makers(graph: ChannelGraph, groups: Sequence[frozenset[int]]) -> _Makers:
    layers = {name: layer for name, layer in graph.layers.items() if layer.makes}
    made = {name: frozenset(layer.results[0].tolist()) for name, layer in layers.items()}
    read = {name: _read_by(layer) for name, layer in layers.items()}
    return _Makers(
        made=made,
        read=read,
        of=tuple(frozenset(name for name in layers if not made[name].isdisjoint(group)) for group in groups),
        readers=tuple(frozenset(name for name in layers if not read[name].isdisjoint(group)) for group in groups),
    )


def _read_by(layer: LayerChannels) -> frozenset[int]:
    """The channels of which a layer makes new ones."""
    made = layer.results[0]
    kernel = layer.filters[0] if layer.filters is not None else ""
    axes = (
        channels
        for weight, of_weight in layer.weights.items()
        for place, channels in enumerate(of_weight)
        if channels is not None
        and (weight, place) != layer.filters
        # A bias has a value for each channel that is made, and reads none.
        and (weight == kernel or not np.array_equal(channels, made))
    )
    return frozenset().union(*(channels.tolist() for channels in axes))


def _made_for(place: int, groups: Sequence[frozenset[int]], makers: _Makers) -> tuple[frozenset[int], frozenset[str]]:
    """The channels of a group and of all that nobody else reads, and the layers that make any of them."""
    gone, more = set[int](), {place}
    while more:
        gone |= more
        gone_makers = frozenset[str]().union(*(makers.of[one] for one in gone))
        more = {one for one, readers in enumerate(makers.readers) if readers and readers <= gone_makers} - gone
    return frozenset[int]().union(*(groups[one] for one in gone)), gone_makers
