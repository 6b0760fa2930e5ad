"""What a deliverable says of many images: one row of scores each, over one view of an image or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.pipeline.deliverable import Deliverable
from emb.pipeline.graphs import scores_of
from emb.spec.dataset import Images


def probabilities(process: Any, deliverable: Deliverable, views: Sequence[Images]) -> NDArray[np.float32]:
    """The mean over `views` of the model's probabilities: (n, classes) float32, rows that sum to 1.

    process: an open runtime with the deliverable's file.  views: the same n images, each cut or mirrored otherwise.
    """
    total = sum(_normalised(process.scores(view, pixels=deliverable.pixels), deliverable) for view in views)
    mean: NDArray[np.float32] = total / np.float32(len(views))
    return mean


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, row by row: (n, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return rows


def _normalised(scores: NDArray[np.float32], deliverable: Deliverable) -> NDArray[np.float32]:
    return softmax(scores) if scores_of(deliverable.graph) == "logits" else scores
