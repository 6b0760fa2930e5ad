"""Weights to begin with: found, downloaded, carried over, and refused with the first layer that does not fit."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest

from emb.errors import DataError, ModelError, SpecError
from emb.pipeline import pretrained
from emb.spec.recipe import ModelSpec, Recipe


def _recipe(builder, weights, **arguments):
    return Recipe(name="test", model=ModelSpec(builder=builder, arguments=arguments, weights=weights))


def _resnet8(*, classes=10, seed=0, width=0.25, input_shape=(16, 16, 3)):
    import keras

    from emb.zoo import ZOO

    keras.utils.set_random_seed(seed)
    return ZOO.get("resnet").build(input_shape=input_shape, classes=classes, depth=8, width=width)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet8.keras"
    _resnet8(seed=1).save(path)
    return path


def _give(model, path):
    pretrained.give(model, _recipe("resnet", str(path), depth=8, width=0.25), path=path, trust=False)


def test_a_file_of_the_same_network_gives_all_its_weights(weights):
    model = _resnet8()
    _give(model, weights)
    for mine, given in zip(model.get_weights(), _resnet8(seed=1).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, given)


def test_other_classes_keep_a_head_of_their_own(weights):
    model, given = _resnet8(classes=3), _resnet8(seed=1)
    before = model.get_layer("scores").get_weights()
    _give(model, weights)
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], given.get_layer("conv1").get_weights()[0])
    np.testing.assert_array_equal(model.get_layer("scores").get_weights()[0], before[0])


def test_weights_of_another_architecture_name_the_first_layer_that_does_not_fit(weights):
    model = _resnet8(width=0.5)
    before = model.get_weights()
    with pytest.raises(ModelError, match="weights of another architecture") as caught:
        _give(model, weights)
    assert "conv1" in caught.value.why
    for mine, untouched in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, untouched)


def test_a_file_that_is_not_there():
    with pytest.raises(ModelError) as caught:
        pretrained.fetch(_recipe("resnet", "nowhere.keras", depth=8))
    assert str(caught.value) == (
        'there are no weights at nowhere.keras\n  fix: give a .keras file, or "imagenet" for the published ones'
    )


def test_no_weights_are_nothing_to_fetch():
    assert pretrained.fetch(_recipe("resnet", "", depth=8)) is None


@pytest.mark.parametrize("entry", pretrained.published(), ids=lambda entry: entry.application)
def test_published_weights_bring_their_preprocessing(entry):
    arguments = {} if entry.depth is None else {"depth": entry.depth}
    recipe = pretrained.prepared(_recipe(entry.builder, "imagenet", **arguments))
    assert recipe.model.arguments["preprocessing"] == entry.preprocessing
    assert len(entry.md5) == 32


def test_another_preprocessing_is_refused():
    with pytest.raises(SpecError) as caught:
        pretrained.prepared(_recipe("resnet", "imagenet", depth=50, preprocessing="unit"))
    assert str(caught.value) == (
        'preprocessing = "unit" does not fit the weights of ResNet50\n'
        '  why: they were trained with "caffe", and other pixels would mean nothing to them\n'
        '  fix: set model.arguments.preprocessing to "caffe", or leave it out'
    )


@pytest.mark.parametrize(("builder", "arguments"), [("resnet", {"depth": 18}), ("lenet", {}), ("vgg", {"depth": 11})])
def test_networks_without_published_weights(builder, arguments):
    with pytest.raises(SpecError, match="there are no published ImageNet weights for"):
        pretrained.prepared(_recipe(builder, "imagenet", **arguments))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server on this machine in the publisher's place, and a cache of its own."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(tmp_path / "site"))
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("EMB_CACHE_DIR", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "site", f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _published_there(monkeypatch, entry, url, *, md5):
    changed = replace(entry, url=url, md5=md5)
    monkeypatch.setattr(pretrained, "published", lambda: (changed,))
    return changed


def _entry(application):
    return next(entry for entry in pretrained.published() if entry.application == application)


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(served, monkeypatch, tmp_path):
    site, url = served
    (site / "weights.h5").write_bytes(b"not what was published")
    _published_there(monkeypatch, _entry("ResNet50"), f"{url}/weights.h5", md5="0" * 32)
    with pytest.raises(DataError, match=r"cannot download weights\.h5 of ResNet50, trained on ImageNet"):
        pretrained.fetch(_recipe("resnet", "imagenet", depth=50))
    assert not (tmp_path / "cache" / "weights" / "weights.h5").exists()


@pytest.mark.slow
def test_published_weights_are_downloaded_once_and_give_the_published_answers(served, monkeypatch):
    import keras

    from emb.zoo import ZOO

    site, url = served
    keras.utils.set_random_seed(3)
    source = keras.applications.DenseNet121(weights=None)
    source.save_weights(site / "densenet.weights.h5")
    md5 = hashlib.md5((site / "densenet.weights.h5").read_bytes()).hexdigest()
    _published_there(monkeypatch, _entry("DenseNet121"), f"{url}/densenet.weights.h5", md5=md5)
    told = []
    recipe = pretrained.prepared(_recipe("densenet", "imagenet", depth=121))
    path = pretrained.fetch(recipe, progress=lambda *progress: told.append(progress))
    total_bytes = path.stat().st_size
    assert told[-1] == ("densenet.weights.h5", total_bytes, total_bytes)
    (site / "densenet.weights.h5").unlink()
    assert pretrained.fetch(recipe) == path

    # 128 pixels get the published beginning, so the answers must be the published network's.
    model = ZOO.get("densenet").build(input_shape=(128, 128, 3), classes=1000, **recipe.model.arguments)
    pretrained.give(model, recipe, path=path, trust=False)
    theirs = keras.applications.DenseNet121(weights=None, input_shape=(128, 128, 3))
    theirs.set_weights(source.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.float32)
    expected = theirs.predict(keras.applications.densenet.preprocess_input(pixels.copy()), verbose=0)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, rtol=1e-4)
