"""The graph of an architecture without its weights, and its beginning. Knows no figure and runs no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emb.graph.model import Graph


def graph_of(builder: str, *, input_shape: tuple[int, int, int], classes: int, arguments: Mapping[str, Any]) -> Graph:
    """The graph of a builder's model for (height, width, channels) images.

    No weight is drawn or stored: VGG-16 takes as little memory as LeNet. Raises SpecError for what the builder
    refuses. Forgets the names that Keras has given to layers so far in this process.
    """
    from emb.export import printing_to_log

    with printing_to_log():
        import keras

        from emb.graph import keras as keras_graph
        from emb.zoo import ZOO

        module = ZOO.get(builder)
        try:
            # Variables that are made in this scope know their shape and dtype and wait for their values.
            with keras.StatelessScope(initialize_variables=False):
                return keras_graph.read(module.build(input_shape=input_shape, classes=classes, **arguments))
        finally:
            # Else the next such scope, one of Keras's own, would give all of them values after all.
            keras.utils.clear_session(free_memory=False)


def stem_of(builder: str, *, input_shape: tuple[int, int, int], arguments: Mapping[str, Any]) -> str:
    """The builder's sentence about its beginning for images of this shape; "" if it begins the same for all."""
    from emb.zoo import ZOO

    stem = getattr(ZOO.get(builder), "stem", None)
    return "" if stem is None else str(stem(input_shape, **arguments))
