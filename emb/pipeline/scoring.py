"""What a deliverable says of many images: one row of scores each, over one view of an image or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import softmax
from emb.pipeline.deliverable import Deliverable
from emb.pipeline.graphs import scores_of
from emb.spec.dataset import Images


def probabilities(process: Any, deliverable: Deliverable, views: Sequence[Images]) -> NDArray[np.float32]:
    """The mean over `views` of the model's probabilities: (n, classes) float32, rows that sum to 1.

    process: an open runtime with the deliverable's file.  views: the same n images, each cut or mirrored otherwise.
    """
    total = sum(normalised(process.scores(view, pixels=deliverable.pixels), deliverable) for view in views)
    mean: NDArray[np.float32] = total / np.float32(len(views))
    return mean


def normalised(scores: NDArray[np.float32], deliverable: Deliverable) -> NDArray[np.float32]:
    """The deliverable's scores as probabilities: (n, classes)."""
    return softmax(scores) if scores_of(deliverable.graph) == "logits" else scores
