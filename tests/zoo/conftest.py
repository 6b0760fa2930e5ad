"""Networks without their weights: of any size in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from emb.zoo import ZOO


@pytest.fixture(scope="session")
def outline() -> Callable[..., Any]:
    """outline(name, **arguments): a builder's model, every weight with a shape and no value; built once.

    Enough for shapes, counts and emb.graph, of networks whose weights would take 600 MB.
    """
    import keras

    @cache
    def build(name: str, **arguments: Any) -> Any:
        with keras.StatelessScope(initialize_variables=False):
            model = ZOO.get(name).build(**arguments)
        # Keras remembers what has no value yet, and would give it one when the next model is built.
        keras.utils.clear_session()
        return model

    return build
