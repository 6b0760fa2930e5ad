"""AlexNet's convolutions in groups, together or split: one network in two forms, which trade their weights."""

from __future__ import annotations

import numpy as np
import pytest

from emb.errors import ModelError
from emb.zoo import ZOO, carry_over

# Whole networks: `make test-fast` has tests/zoo/test_zoo.py for every builder.
pytestmark = pytest.mark.slow

SMALL = {"input_shape": (32, 32, 3), "classes": 10, "width": 0.25, "dropout": 0.0}
# Of different brightness, as the answers to four images of plain noise hardly differ.
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
IMAGES *= np.float32([0.1, 0.4, 0.7, 1.0]).reshape(4, 1, 1, 1)


def _network(*, seed, **arguments):
    """Weights are drawn anew, biases and moving statistics too, so that none is what a fresh one would have."""
    import keras

    keras.utils.set_random_seed(seed)
    model = ZOO.get("alexnet").build(**SMALL, **arguments)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if len(variable.shape) == 1:
            low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.2, 0.2)
            variable.assign(rng.uniform(low, high, variable.shape))
    return model


@pytest.mark.parametrize("normalization", ["lrn", "batch"])
@pytest.mark.parametrize(("before", "after"), [("together", "split"), ("split", "together"), ("together", "together")])
def test_either_form_takes_the_weights_of_the_other(before, after, normalization):
    source = _network(seed=1, groups=before, normalization=normalization)
    target = _network(seed=2, groups=after, normalization=normalization)
    answers = np.asarray(source(IMAGES))
    assert np.abs(np.asarray(target(IMAGES)) - answers).max() > 1e-2
    carry_over(source, target)
    np.testing.assert_allclose(np.asarray(target(IMAGES)), answers, atol=1e-5)
    assert answers.std(axis=0).max() > 1e-2
    assert source.count_params() == target.count_params()


def test_both_forms_learn_the_same_from_a_step():
    together, split = _network(seed=1, groups="together"), _network(seed=2, groups="split")
    carry_over(together, split)
    before = np.asarray(split(IMAGES))
    for model in (together, split):
        model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
        model.train_on_batch(IMAGES, np.arange(4))
    assert np.abs(np.asarray(split(IMAGES)) - before).max() > 1e-3
    np.testing.assert_allclose(np.asarray(split(IMAGES)), np.asarray(together(IMAGES)), atol=1e-5)


def test_bias_and_relu_stand_inside_of_each_branch(outline):
    from emb.graph.keras import read

    graph = read(outline("alexnet", **SMALL, groups="split", normalization="batch"))
    maker = {operation.outputs[-1]: operation.name for operation in graph.operations}
    maker |= {place: "split4" for one in graph.operations if one.name == "split4" for place in one.outputs}
    sources = {operation.name: [maker[i] for i in operation.inputs if i in maker] for operation in graph.operations}
    for group in (1, 2):
        assert sources[f"conv4_group{group}"] == ["split4"]
        assert sources[f"bn4_group{group}"] == [f"conv4_group{group}"]
        assert sources[f"relu4_group{group}"] == [f"bn4_group{group}"]
    assert sources["join4"] == ["relu4_group1", "relu4_group2"]
    biased = [operation for operation in graph.operations if operation.kind == "CONV_2D"]
    assert all(len(operation.inputs) == 3 for operation in biased)
    assert {operation.options["groups"] for operation in biased} == {1}


def test_both_forms_cost_the_same(outline):
    from emb.graph.cost import cost
    from emb.graph.keras import read

    together, split = (cost(read(outline("alexnet", **SMALL, groups=groups))) for groups in ("together", "split"))
    assert (split.macs, split.parameters, split.uncounted) == (together.macs, together.parameters, ())


def test_a_group_that_does_not_fit_is_named():
    source = _network(seed=1, groups="split")
    target = ZOO.get("alexnet").build(**{**SMALL, "width": 0.5})
    with pytest.raises(ModelError) as caught:
        carry_over(source, target)
    assert "conv1 (Conv2D: kernel (5, 5, 3, 48), bias (48,)) is the first that does not fit" in caught.value.why

    import keras
    from keras import layers

    from emb.layers import GroupedConv2D

    def net(count, *, name):
        pixels = keras.Input((4, 4, 2))
        x = GroupedConv2D(count, 1, groups=2, name="pair")(pixels)
        return keras.Model(pixels, layers.GlobalAveragePooling2D()(x), name=name)

    with pytest.raises(ModelError) as caught:
        carry_over(net(4, name="source"), net(6, name="target"))
    assert caught.value.why == (
        "pair (GroupedConv2D, group 1 of 2: kernel (1, 1, 1, 3), bias (3,)) is the first that does not fit: "
        "there stands pair (GroupedConv2D, group 1 of 2: kernel (1, 1, 1, 2), bias (2,))"
    )
