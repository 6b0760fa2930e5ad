"""Every architecture of the zoo: half of its MACs go, nothing else changes, and int8 still works."""

from __future__ import annotations

import gc
from inspect import signature
from typing import Any

import numpy as np
import pytest

from emb.prune import channels
from emb.spec.dataset import Split
from emb.zoo import ZOO

pytestmark = pytest.mark.slow

# One plain, residual, bottleneck, inception and dense network, and the other forms that tie channels in their own way.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vgg", {"depth": 11, "width": 0.25, "batch_norm": True}),
    "residual": ("resnet", {"depth": 20}),
    "residual without projections": ("resnet", {"depth": 20, "shortcut": "identity"}),
    "residual with biases": ("resnet", {"depth": 8}),
    "bottleneck": ("resnet", {"depth": 50, "width": 0.25}),
    "inception": ("googlenet", {"width": 0.25}),
    "inception with normalization": ("googlenet", {"width": 0.25, "normalization": "batch"}),
    "dense": ("densenet", {"depth": 40}),
    "groups": ("alexnet", {"width": 0.25}),
    "groups apart": ("alexnet", {"width": 0.25, "groups": "split", "pooling": "l2"}),
    "separable beginning": ("inception-v2", {"width": 0.25}),
}


@pytest.fixture(autouse=True)
def _nothing_stays_in_memory():
    yield
    import keras

    keras.backend.clear_session()
    gc.collect()


def _built(builder: str, arguments: dict[str, Any], scramble: Any) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    model = scramble(ZOO.get(builder).build(input_shape=(32, 32, 3), classes=10, **arguments))
    # Probabilities of 0 and 1 would hide every difference: let the scores before softmax differ by about 1.
    head = model.get_layer("scores")
    features = np.asarray(keras.Model(model.inputs[0], head.input)(_images(4).astype(np.float32), training=False))
    kernel = np.array(head.kernel)
    head.kernel.assign(kernel / (features @ kernel).std())
    return model


def _images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(7).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.family)
        if name in ("inception with normalization", "separable beginning")
        else name
        for name in ARCHITECTURES
    ],
)
def test_half_of_the_macs_go_and_the_outputs_are_those_of_the_masked_model(name, scramble):
    builder, arguments = ARCHITECTURES[name]
    model = _built(builder, arguments, scramble)
    scores = channels.scores(model, criterion="l1")
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
    pruned, masked = channels.smaller(model, plan), channels.masked(model, plan)
    assert plan.untouched == {}
    assert channels.macs(pruned) == plan.macs_after
    assert channels.macs(pruned) / channels.macs(model) == pytest.approx(0.5, abs=0.01)
    assert channels.macs(masked) == channels.macs(model)
    images = _images(4).astype(np.float32)
    whole, wanted, found = (np.asarray(one(images, training=False)) for one in (model, masked, pruned))
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(found - whole).max() > 0.01


@pytest.mark.parametrize("name", ["residual without projections", "inception", "dense", "groups"])
@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_what_is_removed_is_zero_behind_every_layer(name, scope, scramble):
    import keras

    builder, arguments = ARCHITECTURES[name]
    model = _built(builder, arguments, scramble)
    plan = channels.plan_for_macs(model, channels.scores(model, criterion="l2"), removed=0.5, scope=scope)
    masked = channels.masked(model, plan)
    behind = [layer for layer in masked.layers if layer.name.endswith("_mask0_0")]
    outputs = keras.Model(masked.inputs[0], [layer.output for layer in behind])(_images(2).astype(np.float32))
    for layer, output in zip(behind, outputs, strict=True):
        mask = np.ravel(np.array(layer.mask))
        assert 0 < mask.sum() < len(mask)
        assert not np.asarray(output)[..., mask == 0].any()


def test_every_builder_is_pruned_here():
    """Those with one network each in the way that every recipe is built: narrow."""
    tested = {builder for builder, _ in ARCHITECTURES.values()}
    assert tested | set(_OTHERS) == set(ZOO.names())


_OTHERS = ("inception-v3", "inception-v4", "lenet", "mlp", "mnist-cnn", "mnist-deep", "overfeat")


@pytest.mark.parametrize(
    "builder",
    [pytest.param(name, marks=pytest.mark.family) if name.startswith("inception") else name for name in _OTHERS],
)
def test_the_others_of_the_zoo(builder, scramble):
    narrow = {"width": 0.25} if "width" in signature(ZOO.get(builder).build).parameters else {}
    model = _built(builder, narrow, scramble)
    plan = channels.plan_for_macs(model, channels.scores(model, criterion="l1"), removed=0.5, scope="uniform")
    pruned = channels.smaller(model, plan)
    assert plan.untouched == {}
    # One of 25 units is 4 % of a narrow mlp's MACs.
    assert channels.macs(pruned) / channels.macs(model) == pytest.approx(0.5, abs=0.025)
    images = _images(4).astype(np.float32)
    wanted, found = (np.asarray(one(images, training=False)) for one in (channels.masked(model, plan), pruned))
    assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("name", ["plain", "residual without projections", "inception", "dense", "groups"])
def test_int8_of_a_pruned_model(name, scramble, tmp_path):
    from emb.export import onnx, tflite
    from emb.graph.files import read
    from emb.quantize import SCHEMES, quantize_onnx, quantize_tflite

    builder, arguments = ARCHITECTURES[name]
    model = _built(builder, arguments, scramble)
    plan = channels.plan_for_macs(model, channels.scores(model, criterion="l1"), removed=0.5, scope="global")
    pruned = channels.smaller(model, plan)
    scheme = SCHEMES.get("int8").SCHEME
    for export, quantize, suffix in ((tflite.export, quantize_tflite, "tflite"), (onnx.export, quantize_onnx, "onnx")):
        float_path, path = tmp_path / f"float.{suffix}", tmp_path / f"int8.{suffix}"
        export(pruned, float_path)
        quantize(float_path, path, scheme=scheme, calibration=_images(16))
        graph = read(path)
        assert graph.operations
        assert not [tensor for tensor in graph.tensors if tensor.is_float and suffix == "tflite"]


def test_the_split_is_a_value_of_the_data(scramble):
    """Taylor on a network of the zoo, from the images of a split."""
    model = _built("resnet", {"depth": 8}, scramble)
    train = Split(images=_images(64), labels=np.random.default_rng(0).integers(0, 10, 64))
    scores = channels.scores(model, criterion="taylor", images=train.images, labels=train.labels)
    plan = channels.plan_for_macs(model, scores, removed=0.5, scope="global")
    assert plan.macs_after / plan.macs_before == pytest.approx(0.5, abs=0.01)
    assert channels.scores(model, criterion="bn-scale").unscored == {}
