"""The calls of a Keras model's layers, in order. Imports no keras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emb.errors import ModelError


def functional(model: Any) -> Any:
    """What knows the calls of a functional or Sequential keras.Model. Raises ModelError for a subclassed one."""
    function = getattr(model, "_functional", None) or model
    if not hasattr(function, "_nodes_by_depth"):
        raise ModelError(
            f"the layers of the Keras model {model.name!r} cannot be followed",
            why="it is a subclassed model, or a Sequential one without an input shape",
            fix="build it from keras.Input with the functional API or keras.Sequential",
        )
    return function


def nodes(function: Any) -> Iterator[Any]:
    """The calls in the order in which Keras itself makes them."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)
