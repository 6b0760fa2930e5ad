"""The remedy that leaves the worst layers in float32, as few as reach the goal. Never looks at a test image.

A layer's rounding is judged alone: in a simulation that rounds its weights and its output and nothing else, by how far
the scores move. Its output stays a real number only where who reads it computes in floats as well, so that a layer and
its readers are left in float together; those that are not needed are taken back. Layers that integers cannot compute at
all are left in float first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.data import sample
from emb.graph.model import Graph, constants, consumers
from emb.graph.vocabulary import REPRESENTATIONS
from emb.pipeline.quantized_models import Candidate, write_candidate
from emb.pipeline.repair_bench import FLOAT, QUANTIZED, Bench, Tried
from emb.pipeline.stages import write_float
from emb.spec.contract import Pixels
from emb.spec.repair import FloatLayers

# Validation images on which scores are compared: they move with every rounding, classes do not.
_IMAGES = 64
# At most this share of the layers computes in float32, or a few of a small network; beyond it the file is no int8 file.
_SHARE, _FEW = 0.25, 4
# What hands values on as they are: its readers are those of the layer before.
_HANDING_ON = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "IDENTITY", "MAX_POOL_2D", "PAD", "PADV2", "TRANSPOSE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """A float .tflite. layers: of every operation, "" for none.  folded: layer -> others that are part of it."""

    graph: Graph
    layers: tuple[str, ...]
    folded: Mapping[str, tuple[str, ...]]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The layers that may compute in float32: not the one that gives the model's output."""
        last = {
            layer
            for operation, layer in zip(self.graph.operations, self.layers, strict=True)
            if set(operation.outputs) & set(self.graph.outputs)
        }
        return tuple(layer for layer in dict.fromkeys(self.layers) if layer and layer not in last)

    @property
    def in_floats(self) -> frozenset[str]:
        """The layers with an operation that writes floats."""
        return frozenset(
            layer
            for operation, layer in zip(self.graph.operations, self.layers, strict=True)
            if operation.kind not in REPRESENTATIONS and self.graph.tensors[operation.outputs[0]].is_float
        )

    def layers_of(self, outputs: Collection[str]) -> frozenset[str]:
        """The layers whose operations first write these tensors."""
        return frozenset(
            layer
            for operation, layer in zip(self.graph.operations, self.layers, strict=True)
            if layer and self.graph.tensors[operation.outputs[0]].name in outputs
        )

    def outputs_of(self, layers: Collection[str]) -> frozenset[str]:
        """The first tensors that their operations write."""
        return frozenset(
            self.graph.tensors[operation.outputs[0]].name
            for operation, layer in zip(self.graph.operations, self.layers, strict=True)
            if layer in layers
        )

    def with_readers(self, layer: str) -> tuple[str, ...]:
        """The layer and those that read what it gives, through what only hands it on."""
        read = consumers(self.graph)
        allowed = set(self.candidates)
        found = [layer]
        waiting = [place for place, one in enumerate(self.layers) if one == layer]
        while waiting:
            for index in self.graph.operations[waiting.pop()].outputs:
                for place in read.get(index, ()):
                    reader = self.layers[place]
                    if reader in found or reader not in allowed:
                        continue
                    found.append(reader)
                    if self.graph.operations[place].kind in _HANDING_ON:
                        waiting.append(place)
        return tuple(found)

    def share_of_macs(self, layers: Sequence[str]) -> float:
        """Of the model's multiplications, those of `layers`, in [0, 1]."""
        from emb.graph.cost import cost

        rows = cost(self.graph).operations
        own = sum(row.macs or 0 for row, layer in zip(rows, self.layers, strict=True) if layer in layers)
        return own / max(1, sum(row.macs or 0 for row in rows))


def keep_float(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    """The candidate with the fewest layers in float32, of those tried, that reach the goal.

    All that were tried where the goal is not reached. scratch: a folder for files.
    """
    folder = scratch / "in float"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_candidate(folder, replace(best, float_layers=()), bench.images)
    pixels = write_float(folder / "model.keras", folder / FLOAT, work=bench.work)
    network = _network(folder / FLOAT, best)
    needed, integers_bytes = _needed(network, bench, folder, pixels=pixels)
    bench.quantize(folder, pixels=pixels, kept=network.outputs_of(needed))
    # Some layers have no integer form beside a float one, and follow it.
    following = _network(folder / QUANTIZED, best).in_floats
    chosen = [layer for layer in network.candidates if layer in needed or layer in following]
    floats = FloatLayers(
        layers=tuple(chosen),
        macs_share=network.share_of_macs(chosen),
        added_bytes=None if integers_bytes is None else (folder / QUANTIZED).stat().st_size - integers_bytes,
    )
    with_folded = dict.fromkeys(one for layer in chosen for one in (layer, *network.folded.get(layer, ())))
    return Tried(
        candidate=replace(best, float_layers=tuple(with_folded)),
        layers=tuple(chosen),
        shortfall=f"the goal is not reached with {len(chosen)} of {len(network.candidates)} layers",
        float_layers=floats,
    )


def _needed(network: _Network, bench: Bench, folder: Path, *, pixels: Pixels) -> tuple[frozenset[str], int | None]:
    """(layers to leave in float32, bytes of the file without any); None where there is no such file."""
    from emb.quantize import without_integer_form

    if found := network.layers_of(without_integer_form(folder / FLOAT)):
        # Without an int8 file the others cannot be judged, one by one.
        return found, None
    bench.quantize(folder, pixels=pixels)
    integers_bytes = (folder / QUANTIZED).stat().st_size
    worst = _worst_first(network, bench, folder, pixels=pixels)

    def is_enough(layers: Collection[str]) -> bool:
        bench.quantize(folder, pixels=pixels, kept=network.outputs_of(layers))
        return bench.correct_of(folder / QUANTIZED) >= bench.enough

    grown, reached = _grown(network, worst, is_enough)
    return _thinned(grown, worst, is_enough) if reached else grown, integers_bytes


def _network(path: Path, candidate: Candidate) -> _Network:
    from emb.graph import files
    from emb.graph import keras as keras_graph
    from emb.graph.keras_names import layer_names

    graph = files.read(path)
    fixed = constants(graph)
    names: list[str] = []
    folded: dict[str, tuple[str, ...]] = {}
    for operation, found in zip(graph.operations, layer_names(graph, keras_graph.read(candidate.model)), strict=True):
        known = found is not None and not fixed.issuperset(operation.outputs)
        names.append(found.name if found is not None and known else "")
        if found is not None and known:
            folded[found.name] = tuple(dict.fromkeys((*folded.get(found.name, ()), *found.folded)))
    return _Network(graph=graph, layers=tuple(names), folded=folded)


def _worst_first(network: _Network, bench: Bench, folder: Path, *, pixels: Pixels) -> list[str]:
    """The layers by how far their own rounding moves the scores."""
    from emb.quantize import simulate_except

    context = bench.work.context
    chosen = sample(
        context.dataset.validation,
        count=min(_IMAGES, bench.total),
        seed=context.recipe.train.seed,
        balanced=True,
    )
    exact = _scores(folder / FLOAT, chosen.images[:], pixels=pixels)
    distances = {}
    for layer in network.candidates:
        path = folder / "simulated.tflite"
        simulate_except(folder / FLOAT, folder / QUANTIZED, path, kept=[other != layer for other in network.layers])
        moved = _scores(path, chosen.images[:], pixels=pixels) - exact
        distances[layer] = float(np.mean(np.square(moved)))
    return sorted(distances, key=lambda layer: distances[layer], reverse=True)


def _scores(path: Path, images: NDArray[np.uint8], *, pixels: Pixels) -> NDArray[np.float32]:
    from emb.runtimes import open_runtime

    with open_runtime("litert", model=path) as process:
        return process.scores(images, pixels=pixels)


def _grown(
    network: _Network, worst: Sequence[str], is_enough: Callable[[Collection[str]], bool]
) -> tuple[frozenset[str], bool]:
    """(layers, whether they reach the goal): the worst with their readers, one after the other."""
    most = max(_FEW, int(_SHARE * len(network.candidates)))
    chosen: frozenset[str] = frozenset()
    for layer in worst:
        wanted = chosen.union(network.with_readers(layer))
        if len(wanted) > most or wanted == chosen:
            continue
        chosen = wanted
        if is_enough(chosen):
            return chosen, True
    return chosen, False


def _thinned(
    chosen: frozenset[str], worst: Sequence[str], is_enough: Callable[[Collection[str]], bool]
) -> frozenset[str]:
    """Those of the layers without which the goal is missed. The least of `worst` is taken back first."""
    for layer in reversed(worst):
        without = chosen - {layer}
        if without and without != chosen and is_enough(without):
            chosen = without
    return chosen
