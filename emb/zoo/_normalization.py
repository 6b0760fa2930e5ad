"""The batch normalization of every deep network here. Knows no architecture."""

from __future__ import annotations

from typing import Any

# Statistics that follow a tenth of each step: usable after a hundred steps, where Keras's own 0.99 needs a thousand.
# With 0.99 an Inception-v4 had 92 % on its train batches and 50 % on validation images after 320 steps.
MOMENTUM = 0.9


def batch_normalized(x: Any, *, epsilon: float, name: str, scale: bool = True, first_scale: float = 1.0) -> Any:
    """Each channel less its mean, over its deviation, by a learned scale (if `scale`) and shift; same shape as x.

    epsilon: added to the variance.  first_scale: what the scales begin with.  Source: Ioffe and Szegedy 2015, algorithm 1.
    """
    from keras import initializers, layers

    return layers.BatchNormalization(
        momentum=MOMENTUM,
        epsilon=epsilon,
        scale=scale,
        gamma_initializer=initializers.Constant(first_scale) if first_scale != 1 else "ones",
        name=name,
    )(x)
