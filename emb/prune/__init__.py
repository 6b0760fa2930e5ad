"""Makes a trained Keras model smaller by leaving weights out; one public file per method. Trains and exports nothing.

The underscore files do the work and are imported when used: listing the methods imports no keras.
"""

from __future__ import annotations

from emb.registry import Registry

__all__ = ["PRUNERS"]

PRUNERS = Registry("emb.prune", kind="pruning method")
