"""Images that are decoded when they are asked for: the same pixels as images in memory, however they are asked for."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emb import data
from emb.data import _folder
from emb.data._parts import select
from emb.data._pixels import quiet
from emb.data._streamed import StreamedImages
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Dataset, Split

SHAPE = (6, 8, 3)


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be kept in memory."""
    monkeypatch.setattr(_folder, "IN_MEMORY_BYTES", 0)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[StreamedImages, np.ndarray]:
    """Thirteen images of many sizes and modes, in an order of their own: streamed, and as an array."""
    root = tmp_path_factory.mktemp("both")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(13):
        height, width = rng.integers(5, 40, 2)
        mode = ("RGB", "L", "RGBA", "P")[number % 4]
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
        paths.append(root / f"{number}.{'png' if number % 4 else 'jpg'}")
        image.save(paths[-1])
    order = rng.permutation(13)
    expected = np.stack([data.read_image(paths[index], shape=SHAPE) for index in order])
    return StreamedImages(paths, order, shape=SHAPE), expected


def _splits(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


@pytest.mark.parametrize("own_splits", [False, True])
@pytest.mark.usefixtures("streaming")
def test_streamed_splits_are_those_in_memory(
    own_splits: bool, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (33, 21), 90).save(image_folder / "red" / "grey.jpg")
    if own_splits:
        (image_folder / "train").mkdir()
        for label in ("red", "blue"):
            (image_folder / "test" / label).mkdir(parents=True)
            (image_folder / label / "3.png").rename(image_folder / "test" / label / "3.png")
            (image_folder / label).rename(image_folder / "train" / label)
    request = DataRequest(path=image_folder, shape=(10, 10, 3))
    streamed = data.load("folder", request)
    monkeypatch.setattr(_folder, "IN_MEMORY_BYTES", 2**30)
    eager = data.load("folder", request)
    assert (streamed.labels, streamed.digest, streamed.shape) == (eager.labels, eager.digest, eager.shape)
    for one, other in zip(_splits(streamed), _splits(eager), strict=True):
        assert isinstance(one.images, StreamedImages)
        assert isinstance(other.images, np.ndarray)
        assert np.array_equal(one.labels, other.labels)
        assert one.images.shape == other.images.shape
        assert np.array_equal(one.images[:], other.images)
    chosen = [data.calibration_images(one, count=8, seed=1) for one in (streamed, eager)]
    assert np.array_equal(*chosen)


def test_the_budget_counts_decoded_pixels(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = DataRequest(path=image_folder, shape=(10, 10, 3))
    for budget, kind in ((20 * 300, np.ndarray), (20 * 300 - 1, StreamedImages)):
        monkeypatch.setattr(_folder, "IN_MEMORY_BYTES", budget)
        assert isinstance(data.load("folder", request).train.images, kind)


@pytest.mark.usefixtures("streaming")
def test_files_of_other_formats_stay_in_memory(mnist_files: Path) -> None:
    assert isinstance(data.load("mnist", DataRequest(directories=(mnist_files,))).train.images, np.ndarray)


indices = st.integers(-13, 12)
keys = st.one_of(
    indices,
    indices.map(np.int64),
    st.slices(13),
    st.lists(indices, max_size=20).map(lambda x: np.array(x, dtype=np.int64)),
    st.lists(indices, min_size=1, max_size=20),
    st.lists(indices, min_size=4, max_size=4).map(lambda x: np.array(x, dtype=np.int32).reshape(2, 2)),
    st.lists(st.booleans(), min_size=13, max_size=13).map(np.array),
)


@given(key=keys)
def test_indexing_means_what_numpy_means(both: tuple[StreamedImages, np.ndarray], key: object) -> None:
    streamed, array = both
    found = streamed[key]
    assert found.dtype == np.uint8
    assert found.shape == array[key].shape
    assert np.array_equal(found, array[key])


@given(key=st.one_of(st.slices(13), st.lists(st.booleans(), min_size=13, max_size=13).map(np.array)))
def test_a_selection_stays_undecoded(both: tuple[StreamedImages, np.ndarray], key: object) -> None:
    streamed, array = both
    assert streamed.select(key).shape == array[key].shape
    assert np.array_equal(streamed.select(key)[:], array[key])


@pytest.mark.parametrize("key", [13, -14, [0, 13], np.ones(12, bool), 0.5, "a", (0, 0)])
def test_wrong_indices_are_refused_as_by_numpy(both: tuple[StreamedImages, np.ndarray], key: object) -> None:
    with pytest.raises(IndexError):
        both[0][key]


def test_it_describes_itself_as_an_array_does(both: tuple[StreamedImages, np.ndarray]) -> None:
    streamed, array = both
    for name in ("shape", "dtype", "ndim", "nbytes"):
        assert getattr(streamed, name) == getattr(array, name)
    assert len(streamed) == len(array)
    assert all(np.array_equal(one, other) for one, other in zip(streamed, array, strict=True))
    assert np.array_equal(pickle.loads(pickle.dumps(streamed))[:], array)


def test_numpy_does_not_read_them_all_behind_ones_back(both: tuple[StreamedImages, np.ndarray]) -> None:
    for convert in (np.asarray, np.ascontiguousarray, np.array):
        with pytest.raises(TypeError, match="1,872 bytes of memory; index them in batches"):
            convert(both[0])


def test_splitting_decodes_nothing(tmp_path: Path) -> None:
    nothing_there = [tmp_path / f"{number}.png" for number in range(4)]
    images = StreamedImages(nothing_there, np.arange(4), shape=SHAPE)
    half = select(Split(images=images, labels=np.arange(4)), np.array([True, False, True, False]))
    assert half.images.shape == (2, *SHAPE)
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        half.images[1]


def test_threads_get_the_same_pixels(both: tuple[StreamedImages, np.ndarray]) -> None:
    streamed, array = both
    rng = np.random.default_rng(1)
    wanted = [rng.integers(0, 13, 7) for _ in range(64)]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for key, found in zip(wanted, pool.map(lambda key: streamed[key], wanted), strict=True):
            assert np.array_equal(found, array[key])
    assert warnings.filters == before


def test_warnings_come_back_when_the_last_reader_is_done() -> None:
    before = list(warnings.filters)
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert warnings.filters != before
    second.__exit__(None, None, None)
    assert warnings.filters == before


_MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from emb import data
from emb.spec.dataset import DataRequest
request = DataRequest(path=Path(sys.argv[1]), shape=(224, 224, 3))
data.digest("folder", request)
dataset = data.load("folder", request)
order = np.random.default_rng(0).permutation(len(dataset.train))
for batch in np.array_split(order[:160], 5):
    dataset.train.images[batch]
data.calibration_images(dataset, count=50, seed=0)
print(type(dataset.train.images).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_memory_does_not_grow_with_the_folder(many_images: Callable[[int], Path]) -> None:
    peaks_kib = {}
    for count in (200, 20_000):
        call = [sys.executable, "-c", _MEASURE, str(many_images(count))]
        kind, peak = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
        assert kind == ("ndarray" if count == 200 else "StreamedImages")
        peaks_kib[count] = int(peak)
    # In memory the 20,000 would take 2.8 GiB more. The names and numbers of so many take 2 MiB.
    assert peaks_kib[20_000] < peaks_kib[200] + 16 * 1024
