"""How much memory it takes to make an order ready, from the size of its network. Trains and converts nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from emb.errors import EmbError
from emb.pipeline.json_files import read_json, write_json
from emb.pipeline.request import data_request, resolve
from emb.pipeline.stage import code_digest, versions
from emb.spec.recipe import Recipe
from emb.store import Step, Store

if TYPE_CHECKING:
    from emb.pipeline.build import Order

# Conversion: above every peak of a whole build that benchmarks/full_size.py measured, all its processes together, by
# 0.1 to 0.8 GiB: GoogLeNet 1.7 GiB with 7 M parameters, ResNet-50 2.6 with 26 M, VGG-16 7.0 with 138 M, OverFeat 7.2
# with 146 M.
_BASE_BYTES = 2 * 2**30
_CONVERSION_BYTES = 40  # for each parameter
# Training, in float32: for each parameter the weight, its gradient and average, and the optimizer's two; for each
# element that the operations of one image give, what is left of its value on the way back, as some are written over.
# Above four peaks of `emb train RECIPE --data digits` on two cores, TensorFlow, by 0.2 to 0.5 GiB: resnet20-cifar10 1.1
# GiB with batches of 128 and 1.7 of 512, vgg16-cifar10 1.7 of 128, densenet-cifar10 3.4 of 64.
_TRAINING_BASE_BYTES = 5 * 2**28
_TRAINING_BYTES = 5 * 4
_ELEMENT_BYTES = 3
_CLASSES = 1000
UNKNOWN_BYTES = 3 * 2**30
"""For an order whose network cannot be counted, which will say itself what is wrong with it."""

_FILE = "size.json"
_CODE = ("zoo", "layers", "graph", "pipeline/zoo_graph.py", "pipeline/memory_needs.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """parameters: of the whole network.  elements: that its operations give for one image, all together."""

    parameters: int
    elements: int


def memory_needs(orders: Mapping[str, Order]) -> dict[str, int]:
    """name -> bytes. What each distinct network counts is found once, without TensorFlow, and kept in the store."""
    recipes: dict[str, Recipe] = {}
    for name, order in orders.items():
        with suppress(EmbError):
            recipes[name] = resolve(
                str(order.recipe), data=order.data, overrides=order.overrides, assignments=order.assignments
            )
    steps: dict[str, Step] = {}
    for name, recipe in recipes.items():
        if recipe.model.builder:
            with suppress(EmbError):
                steps[name] = _step(recipe, orders[name].data_dir)
    sizes = _sizes(steps, {name: (recipes[name], orders[name].data_dir) for name in steps})
    sizes |= {
        name: size for name, recipe in recipes.items() if recipe.model.file and (size := _of_file(recipe.model.file))
    }
    return {name: memory_need(sizes[name], recipes[name]) if name in sizes else UNKNOWN_BYTES for name in orders}


def memory_need(size: NetworkSize, recipe: Recipe) -> int:
    """Bytes for a network of this size: of its conversion, or of its training if that takes more."""
    need = _BASE_BYTES + _CONVERSION_BYTES * size.parameters
    if recipe.train.epochs or (recipe.prune.is_asked_for and recipe.prune.epochs):
        batch = recipe.train.batch_size * size.elements * _ELEMENT_BYTES
        need = max(need, _TRAINING_BASE_BYTES + _TRAINING_BYTES * size.parameters + batch)
    return need


def _step(recipe: Recipe, data_dir: Path | None) -> Step:
    from emb import data as data_sets

    request = data_request(recipe, data_dir=data_dir)
    return Step(
        name="network size",
        # Where the recipe says no shape, the images have theirs.
        inputs={} if recipe.input.shape else {"data": data_sets.digest(recipe.data.name, request)},
        parameters={
            "builder": recipe.model.builder,
            "arguments": dict(recipe.model.arguments),
            "shape": list(recipe.input.shape),
        },
        tools=versions(("keras",)),
        code=code_digest(_CODE),
    )


def _sizes(steps: Mapping[str, Step], recipes: Mapping[str, tuple[Recipe, Path | None]]) -> dict[str, NetworkSize]:
    store = Store()
    distinct = {step.key: name for name, step in steps.items()}
    unknown = [name for name in distinct.values() if store.find(steps[name]) is None]
    counted = dict(zip(unknown, _counted([recipes[name] for name in unknown]), strict=True))
    found: dict[str, NetworkSize] = {}
    for key, name in distinct.items():
        size = counted.get(name)
        if name in counted and size is None:
            continue
        artifact = store.run(steps[name], lambda folder, size=size: write_json(folder / _FILE, asdict(size)))
        found[key] = NetworkSize(**read_json(artifact.path(_FILE)))
    return {name: found[step.key] for name, step in steps.items() if step.key in found}


def _of_file(path: str) -> NetworkSize | None:
    """As if it were float32 all through; what one image gives is small beside it."""
    with suppress(OSError):
        file = Path(path)
        files = [one for one in file.rglob("*") if one.is_file()] if file.is_dir() else [file]
        return NetworkSize(parameters=sum(one.stat().st_size for one in files) // 4, elements=0)
    return None


def _counted(recipes: Sequence[tuple[Recipe, Path | None]]) -> list[NetworkSize | None]:
    """None for those whose network cannot be made. In a process of its own, as Keras cannot change its backend."""
    if not recipes:
        return []
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_count, args=(theirs, recipes))
    process.start()
    theirs.close()
    try:
        return list(ours.recv())
    except EOFError:
        return [None] * len(recipes)
    finally:
        process.terminate()
        process.join()
        ours.close()


def _count(connection: Connection, recipes: Sequence[tuple[Recipe, Path | None]]) -> None:
    os.environ["KERAS_BACKEND"] = "numpy"  # far sooner there than TensorFlow; nothing is computed
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send([_size(recipe, data_dir) for recipe, data_dir in recipes])


def _size(recipe: Recipe, data_dir: Path | None) -> NetworkSize | None:
    from math import prod

    from emb.graph.cost import parameters
    from emb.pipeline.inspect import images_of
    from emb.pipeline.zoo_graph import graph_of

    try:
        # To count classes would be to read the images; a thousand instead of ten cost ResNet-50 80 MB.
        shape, classes = images_of(recipe, data_dir=data_dir, classes=_CLASSES if recipe.input.shape else None)
        graph = graph_of(
            recipe.model.builder, input_shape=shape, classes=classes, arguments=dict(recipe.model.arguments)
        )
    except EmbError:
        return None
    outputs = (graph.tensors[index].shape for operation in graph.operations for index in operation.outputs)
    return NetworkSize(parameters=parameters(graph), elements=sum(prod(shape[1:]) for shape in outputs if shape))
