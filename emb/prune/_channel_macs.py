"""What a model and its channels cost, counted by emb.graph without building anything. Knows no criterion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.graph.cost import operation_macs
from emb.graph.keras import read
from emb.graph.model import Graph
from emb.prune._channel_graph import ChannelGraph, Kept
from emb.prune._channel_rules import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCounter:
    """graph: of the whole model.  axes: by the tensor's number, of every weight that can be cut.

    counted: the numbers of the operations that multiply.
    """

    graph: Graph
    axes: dict[int, Axes]
    counted: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, channels: ChannelGraph) -> MacCounter:
        graph = read(model)
        names = {
            f"{layer}/{weight}": axes
            for layer, holds in channels.layers.items()
            for weight, axes in holds.weights.items()
        }
        counted = tuple(number for number, operation in enumerate(graph.operations) if operation_macs(graph, operation))
        weights = {index for number in counted for index in graph.operations[number].inputs[1:2]}
        axes = {
            index: names[tensor.name]
            for index, tensor in enumerate(graph.tensors)
            if index in weights and tensor.constant and tensor.name in names
        }
        return cls(graph=graph, axes=axes, counted=counted)

    def macs(self, kept: Kept) -> int:
        """Multiply-accumulate operations with the channels that are kept, as emb.graph.cost counts them."""
        tensors = list(self.graph.tensors)
        for index, axes in self.axes.items():
            before = tensors[index].shape or ()
            shape = tuple(
                extent if channels is None else int(kept[channels].sum())
                for extent, channels in zip(before, axes, strict=True)
            )
            tensors[index] = replace(tensors[index], shape=shape)
        # Activations keep their shapes: their channels do not count, see operation_macs.
        graph = replace(self.graph, tensors=tuple(tensors))
        return sum(operation_macs(graph, graph.operations[number]) or 0 for number in self.counted)

    def weights_of_each(self, channels: ChannelGraph) -> NDArray[np.float64]:
        """(channels.count,): for each channel, by its number, how many weights of the whole model go with it alone.

        Those of the filters that make it and those by which others read it, without biases and normalizations.
        """
        found = np.zeros(channels.count)
        for index, axes in self.axes.items():
            elements = self.graph.tensors[index].elements or 0
            for one in axes:
                if one is not None:
                    np.add.at(found, one, elements / len(one))
        return found
