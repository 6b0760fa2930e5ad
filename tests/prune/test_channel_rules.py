"""Every rule of emb.prune._channel_rules: which channels are tied, and that what is left computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from emb.errors import ModelError
from emb.layers import ChannelPadding, ChannelSplit, GroupedConv2D, L2Pooling2D, LocalResponseNormalization
from emb.prune import channels
from emb.prune._channel_graph import trace


def _plain(layers, x):
    x = layers.Conv2D(6, 3, activation="relu", name="a")(x)
    return layers.Conv2D(5, 3, name="b")(x)


def _normalized(layers, x):
    x = layers.Conv2D(6, 3, use_bias=False, name="a")(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _normalized_without_scale(layers, x):
    return layers.BatchNormalization(scale=False)(layers.Conv2D(6, 3, name="a")(x))


def _normalization_before(layers, x):
    """DenseNet's order, with channels that pass several normalizations."""
    x = layers.Conv2D(4, 3, padding="same", name="a")(x)
    for name in "bc":
        new = layers.ReLU()(layers.BatchNormalization()(x))
        new = layers.Conv2D(3, 3, padding="same", use_bias=False, name=name)(new)
        x = layers.Concatenate()([x, new])
    return layers.ReLU()(layers.BatchNormalization()(x))


def _residual(layers, x):
    x = layers.Conv2D(6, 3, padding="same", name="a")(x)
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="b")(x)
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", name="c")(y))
    x = layers.Activation("relu")(layers.Add()([x, y]))
    return layers.Conv2D(4, 1, name="d")(x)


def _sum_of_a_concatenation(layers, x):
    """The first channels of c are those of a, the last ones those of b."""
    a, b = layers.Conv2D(3, 3, name="a")(x), layers.Conv2D(4, 3, name="b")(x)
    return layers.Add()([layers.Concatenate()([a, b]), layers.Conv2D(7, 3, name="c")(x)])


def _padded_shortcut(layers, x):
    """He et al. 2015, option A: four channels of b are a's, the others its own."""
    x = layers.Conv2D(4, 3, padding="same", name="a")(x)
    y = layers.Conv2D(7, 3, padding="same", name="b")(x)
    return layers.ReLU()(layers.Add()([ChannelPadding(3)(x), y]))


def _gate(layers, x):
    """Squeeze and excitation: a sigmoid of 0 is not 0."""
    x = layers.Conv2D(6, 3, name="a")(x)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Dense(3, activation="relu", name="b")(y)
    return layers.Multiply()([x, layers.Dense(6, activation="sigmoid", name="c")(y)])


def _other_merges(layers, x):
    a, b, c = (layers.Conv2D(5, 3, name=name)(x) for name in "abc")
    return layers.Maximum()([layers.Subtract()([a, b]), layers.Average()([a, c])])


def _rows_side_by_side(layers, x):
    return layers.Concatenate(axis=1)([layers.Conv2D(5, 3, name=name)(x) for name in "ab"])


def _flattened(layers, x):
    x = layers.Flatten()(layers.Conv2D(5, 3, name="a")(x))
    return layers.Dense(6, activation="tanh", name="b")(x)


def _flattened_and_normalized(layers, x):
    return layers.BatchNormalization()(layers.Flatten()(layers.Conv2D(5, 3, name="a")(x)))


def _reshaped(layers, x):
    x = layers.Reshape((80,))(layers.Conv2D(5, 3, name="a")(x))
    x = layers.Reshape((1, 1, 6))(layers.Dense(6, name="b")(x))
    return layers.Conv2D(3, 1, name="c")(x)


def _depthwise(layers, x):
    x = layers.Conv2D(5, 3, name="a")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="b")(x)
    return layers.Conv2D(4, 1, name="c")(x)


def _as_many_groups_as_channels(layers, x):
    x = layers.Conv2D(4, 3, name="a")(x)
    x = GroupedConv2D(8, 3, groups=4, activation="relu", name="b")(x)
    return layers.Conv2D(4, 1, name="c")(x)


def _separable(layers, x):
    x = layers.Conv2D(5, 3, name="a")(x)
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu", name="b")(x)
    return layers.Conv2D(4, 1, name="c")(x)


def _transposed(layers, x):
    x = layers.Conv2DTranspose(5, 3, strides=2, name="a")(x)
    return layers.Conv2DTranspose(6, 2, name="b")(x)


def _grouped(layers, x):
    """Groups stay equally wide: what goes from one goes from the other."""
    x = layers.Conv2D(8, 3, name="a")(x)
    x = GroupedConv2D(6, 3, groups=2, activation="relu", name="b")(x)
    return layers.Conv2D(4, 1, name="c")(x)


def _split(layers, x):
    first, second = ChannelSplit(2)(layers.Conv2D(8, 3, name="a")(x))
    parts = [layers.Conv2D(3, 1, name="b")(first), layers.Conv2D(4, 1, name="c")(second)]
    return layers.Concatenate()(parts)


def _response_normalized(layers, x):
    """Each channel by those that were its neighbours, of which some are gone."""
    x = layers.Conv2D(8, 3, name="a")(x)
    x = LocalResponseNormalization(depth_radius=2, alpha=0.5)(x)
    return LocalResponseNormalization(depth_radius=1, alpha=0.5, across="space")(x)


def _pooled(layers, x):
    x = layers.ZeroPadding2D(2)(layers.Conv2D(8, 3, activation="sigmoid", name="a")(x))
    x = layers.AveragePooling2D(2, 1, padding="same")(L2Pooling2D(2, 1)(layers.MaxPooling2D(2, 1)(x)))
    x = layers.UpSampling2D(2)(layers.Cropping2D(1)(layers.Dropout(0.5)(x)))
    return layers.GlobalMaxPooling2D()(x)


def _activated(layers, x):
    """All kinds of activations, most of which make something of a 0."""
    x = layers.Conv2D(6, 3, activation="softplus", name="a")(x)
    x = layers.PReLU(shared_axes=[1, 2])(layers.ELU()(layers.LeakyReLU()(layers.Activation("sigmoid")(x))))
    return layers.PReLU()(layers.Conv2D(5, 1, activation="hard_sigmoid", name="b")(x))


def _rescaled(layers, x):
    x = layers.Rescaling([1 / 2, 1 / 3, 1 / 4], offset=-1.0)(x)
    x = layers.Conv2D(4, 3, name="a")(x)
    return layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.1, 0.2, 0.3, 0.4])(x)


def _shared(layers, x):
    """One layer that is called for two others: both feed the same weights."""
    a, b = layers.Conv2D(5, 3, name="a")(x), layers.Conv2D(5, 3, name="b")(x)
    shared, activation = layers.Conv2D(4, 1, name="c"), layers.ReLU()
    return layers.Concatenate()([activation(shared(a)), activation(shared(b))])


RULES = [
    (_plain, {"a": "a", "b": "b"}),
    (_normalized, {"a": "a"}),
    (_normalized_without_scale, {"a": "a"}),
    (_normalization_before, {"a": "a", "b": "b", "c": "c"}),
    (_residual, {"a": "ac", "b": "b", "d": "d"}),
    (_sum_of_a_concatenation, {"a": "ac", "b": "bc"}),
    (_padded_shortcut, {"a": "ab", "b": "b"}),
    (_gate, {"a": "ac", "b": "b"}),
    (_other_merges, {"a": "abc"}),
    (_rows_side_by_side, {"a": "ab"}),
    (_flattened, {"a": "a", "b": "b"}),
    (_flattened_and_normalized, {"a": "a"}),
    (_reshaped, {"a": "a", "b": "b", "c": "c"}),
    (_depthwise, {"a": "ab", "c": "c"}),
    (_as_many_groups_as_channels, {"a": "ab", "c": "c"}),
    (_separable, {"a": "a", "b": "b", "c": "c"}),
    (_transposed, {"a": "a", "b": "b"}),
    (_grouped, {"a": "a", "b": "b", "c": "c"}),
    (_split, {"a": "a", "b": "b", "c": "c"}),
    (_response_normalized, {"a": "a"}),
    (_pooled, {"a": "a"}),
    (_activated, {"a": "a", "b": "b"}),
    (_rescaled, {"a": "a"}),
    (_shared, {"b": "ab", "c": "c"}),
]


@pytest.mark.parametrize(("body", "tied"), RULES)
def test_what_is_tied(made, body, tied):
    graph = trace(made(body))
    assert {group.name: "".join(sorted(group.layers)) for group in graph.groups} == tied
    assert graph.untouched == {}


@pytest.mark.parametrize("body", [body for body, _ in RULES])
def test_what_is_left_computes_what_the_masked_model_does(made, random_plan, difference, body):
    model = made(body)
    plan = random_plan(model, np.random.default_rng(3))
    pruned = channels.smaller(model, plan)
    assert pruned.count_params() < model.count_params()
    assert difference(channels.masked(model, plan), pruned) < 1e-5
    # The masks do something, or the test above would say nothing.
    assert difference(model, pruned) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("body", [body for body, _ in RULES])
def test_it_is_an_ordinary_model(made, random_plan, difference, body, tmp_path):
    import keras

    model = made(body)
    pruned = channels.smaller(model, random_plan(model, np.random.default_rng(4)))
    assert [(type(one), one.name) for one in pruned.layers] == [(type(one), one.name) for one in model.layers]
    pruned.save(tmp_path / "pruned.keras")
    assert difference(pruned, keras.models.load_model(tmp_path / "pruned.keras")) == 0


def test_channels_of_groups_go_in_pairs(made):
    (a, b, _) = trace(made(_grouped)).groups
    assert a.channels == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert b.channels == ((0, 3), (1, 4), (2, 5))


def test_channels_of_equal_parts_go_in_pairs(made):
    (a, *_) = trace(made(_split)).groups
    assert a.channels == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_a_wider_sum_is_decided_where_its_channels_are_made(made):
    (a, b) = trace(made(_padded_shortcut)).groups
    assert a.channels == ((0,), (1,), (2,), (3,))
    assert b.channels == ((4,), (5,), (6,))


def test_a_sequential_model(difference, scramble, random_plan):
    import keras
    from keras import layers

    body = [layers.Conv2D(6, 3, name="a"), layers.Flatten(), layers.Dense(4, activation="softmax")]
    model = scramble(keras.Sequential([keras.Input((6, 6, 3)), *body]))
    plan = random_plan(model, np.random.default_rng(0))
    assert list(plan.kept) == ["a"]
    assert difference(channels.smaller(model, plan), channels.masked(model, plan)) < 1e-5


def test_several_outputs_stay_what_they_are(scramble, random_plan):
    import keras
    from keras import layers

    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(6, 3, activation="relu", name="a")(x)
    flat = layers.Flatten()(y)
    model = scramble(keras.Model(x, [layers.Dense(4, name="scores")(flat), layers.Dense(2, name="auxiliary")(flat)]))
    plan = random_plan(model, np.random.default_rng(0))
    given = np.random.default_rng(0).uniform(0, 1, (2, 6, 6, 3)).astype(np.float32)
    both = zip(channels.smaller(model, plan)(given), channels.masked(model, plan)(given), strict=True)
    assert [one.shape[-1] for one in channels.smaller(model, plan)(given)] == [4, 2]
    assert all(np.abs(np.asarray(one) - np.asarray(other)).max() < 1e-5 for one, other in both)


class TestLeftWhole:
    """Layers without a rule: named, and neither an error nor a wrong result."""

    def _check(self, random_plan, difference, model, groups, untouched):
        graph = trace(model)
        assert [group.name for group in graph.groups] == groups
        assert dict(graph.untouched) == untouched
        plan = random_plan(model, np.random.default_rng(2))
        assert difference(channels.smaller(model, plan), channels.masked(model, plan)) < 1e-5

    def test_a_kind_that_emb_does_not_know(self, made, random_plan, difference):
        def body(layers, x):
            x = layers.Conv2D(5, 3, name="a")(layers.Conv2D(6, 3, name="free")(x))
            x = layers.LayerNormalization(name="norm")(x)
            return layers.Conv2D(5, 1, name="b")(x)

        why = "emb knows no rule for the channels of a layer of the kind LayerNormalization"
        untouched = {"norm": why, "a": f"its channels stay: they reach norm: {why}"}
        self._check(random_plan, difference, made(body), ["free", "b"], untouched)

    def test_a_layer_of_ones_own(self, made, random_plan, difference):
        import keras

        class Conv2D(keras.layers.Conv2D):
            def call(self, inputs):
                return super().call(inputs[..., ::-1])

        def body(layers, x):
            x = Conv2D(4, 1, name="own")(layers.Conv2D(5, 3, name="a")(x))
            return layers.Conv2D(4, 1, name="b")(x)

        why = "emb knows no rule for the channels of a layer of the kind Conv2D"
        untouched = {"own": why, "a": f"its channels stay: they reach own: {why}"}
        self._check(random_plan, difference, made(body), ["b"], untouched)

    def test_an_operation_without_a_layer(self, made, random_plan, difference):
        def body(layers, x):
            x = layers.Conv2D(4, 3, name="a")(x)[:, :2]
            return layers.Conv2D(3, 1, name="b")(x)

        model = made(body)
        (name,) = (one.name for one in model.operations if type(one).__name__ == "GetItem")
        why = "emb knows no rule for the channels of a layer of the kind GetItem"
        untouched = {"a": f"its channels stay: they reach {name}: {why}"}
        self._check(random_plan, difference, model, ["b"], untouched)

    def test_weights_of_another_kind(self, made, random_plan, difference):
        """Low-rank updates beside a kernel, which a cut of the kernel alone would leave behind."""

        def body(layers, x):
            x = layers.Flatten()(layers.Conv2D(5, 3, name="a")(x))
            dense = layers.Dense(6, name="adapted")
            dense.build(x.shape)
            dense.enable_lora(2)
            return layers.Dense(4, name="b")(dense(x))

        why = "emb knows no rule for its weight lora_kernel_a"
        untouched = {"adapted": why, "a": f"its channels stay: they reach adapted: {why}"}
        self._check(random_plan, difference, made(body), ["b"], untouched)

    def test_a_model_inside_of_the_model(self, made, random_plan, difference):
        import keras

        def body(layers, x):
            inner = keras.Sequential([keras.Input((4, 4, 6)), layers.Conv2D(6, 1, name="inner")], name="nested")
            x = inner(layers.Conv2D(6, 3, name="a")(x))
            return layers.Conv2D(5, 1, name="b")(x)

        why = "emb knows no rule for the channels of a layer of the kind Sequential"
        untouched = {"nested": why, "a": f"its channels stay: they reach nested: {why}"}
        self._check(random_plan, difference, made(body), ["b"], untouched)

    def test_what_is_added_to_the_input(self, made, random_plan, difference):
        def body(layers, x):
            y = layers.Conv2D(5, 3, padding="same", name="a")(x)
            return layers.Add()([x, layers.Conv2D(3, 3, padding="same", name="b")(y)])

        untouched = {"b": "its channels stay: they are the model's input"}
        self._check(random_plan, difference, made(body), ["a"], untouched)

    def test_a_softmax_inside(self, made, random_plan, difference):
        def body(layers, x):
            x = layers.Conv2D(5, 3, activation="softmax", name="a")(layers.Conv2D(6, 3, name="free")(x))
            return layers.Softmax(name="weights")(layers.Conv2D(4, 1, name="b")(x))

        untouched = {
            "a": "its channels stay: the activation softmax of a may mix them",
            "b": "its channels stay: weights weighs them against each other",
        }
        self._check(random_plan, difference, made(body), ["free"], untouched)

    def test_one_channel_for_all(self, made, random_plan, difference):
        def body(layers, x):
            x = layers.Conv2D(5, 3, name="a")(x)
            return layers.Multiply(name="attention")([x, layers.Conv2D(1, 1, activation="sigmoid", name="b")(x)])

        untouched = {"b": "its channels stay: it meets 5 channels in attention"}
        self._check(random_plan, difference, made(body), ["a"], untouched)

    def test_channels_first(self):
        import keras
        from keras import layers

        x = keras.Input((3, 6, 6))
        y = layers.Flatten()(layers.Conv2D(5, 3, data_format="channels_first", name="a")(x))
        y = layers.Dense(5, name="b")(y)
        graph = trace(keras.Model(x, layers.Dense(4, name="scores")(y)))
        assert [group.name for group in graph.groups] == ["b"]
        assert graph.untouched == {"a": "its channels come first"}

    def test_one_setting_for_calls_of_different_width(self, made, random_plan, difference):
        def body(layers, x):
            shape, a = layers.Reshape((-1,), name="flat"), layers.Conv2D(5, 3, name="a")(x)
            both = [shape(a), shape(layers.Conv2D(4, 3, name="b")(x))]
            return layers.Dense(3, name="c")(layers.Concatenate()(both))

        graph = trace(made(body))
        assert [group.name for group in graph.groups] == ["c"]
        assert set(graph.untouched) == {"a", "b"}

    def test_a_model_of_which_nothing_can_go(self, made):
        def body(layers, x):
            return layers.LayerNormalization(name="norm")(layers.Conv2D(6, 3, name="a")(x))

        with pytest.raises(ModelError) as caught:
            channels.scores(made(body), criterion="l1")
        why = "emb knows no rule for the channels of a layer of the kind LayerNormalization"
        assert str(caught.value).splitlines()[1:] == [
            f"  why: norm: {why}",
            f"       a: its channels stay: they reach norm: {why}",
            "  fix: prune its weights one by one instead, or choose another architecture",
        ]

    def test_a_subclassed_model(self):
        import keras

        class Own(keras.Model):
            def call(self, inputs):
                return inputs

        with pytest.raises(ModelError) as caught:
            trace(Own(name="own"))
        assert str(caught.value) == (
            "the layers of the Keras model 'own' cannot be followed\n"
            "  why: it is a subclassed model, or a Sequential one without an input shape\n"
            "  fix: build it from keras.Input with the functional API or keras.Sequential"
        )
