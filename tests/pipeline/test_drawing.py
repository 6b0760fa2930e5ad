"""Gradient norms of variables become those of layers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emb.pipeline.drawing import norms_of_layers
from emb.train import GradientNorms

NAMES = ("conv1/kernel", "conv1/bias", "bn1/gamma", "bn1/beta", "block/conv2/kernel", "scores/kernel", "scores/bias")
NORMS = arrays(np.float32, (3, len(NAMES)), elements=st.floats(0, 1e6, width=32))


@given(NORMS)
def test_a_layers_norm_is_that_of_all_its_variables_together(norms):
    layers, together = norms_of_layers(GradientNorms(names=NAMES, norms=norms))
    assert layers == ("conv1", "block/conv2", "scores")
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[:, 0], np.hypot(norms[:, 0], norms[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(together[:, 1], norms[:, 4], rtol=1e-5)


def test_a_layer_that_was_frozen_has_no_norm():
    norms = np.array([[np.nan, np.nan, 1, 1, 3, 3, 4], [3, np.nan, 1, 1, 3, 3, 4]], np.float32)
    _, together = norms_of_layers(GradientNorms(names=NAMES, norms=norms))
    np.testing.assert_array_equal(together, np.array([[np.nan, 3, 5], [3, 3, 5]], np.float32))


def test_without_any_kernel_every_layer_counts():
    gradients = GradientNorms(names=("bn1/gamma", "bn1/beta"), norms=np.array([[3, 4]], np.float32))
    layers, together = norms_of_layers(gradients)
    assert (layers, together.tolist()) == (("bn1",), [[5.0]])
