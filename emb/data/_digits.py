"""Reads scikit-learn's digits.csv.gz: 64 pixels of 0 to 16 and a label in each line. Knows not where it lies."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.data._files import damaged, read_bytes
from emb.data._locate import Located
from emb.data._parts import Parts, select
from emb.data._pixels import to_shape
from emb.data._splits import stratified
from emb.spec.dataset import Split

_BRIGHTEST = 16
# Not the recipe's seed: the test split is the same in every build.
_TEST_SEED = 0
_FIX = "install scikit-learn again: pip install --force-reinstall scikit-learn"


def read_parts(
    located: Located, *, labels: tuple[str, ...], shape: tuple[int, int, int], test_fraction: float
) -> Parts:
    """Train and test of the one file, images in `shape`."""
    table = _read_table(located.files[0], classes=len(labels))
    levels = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint16)
    pixels = ((levels * 255 + _BRIGHTEST // 2) // _BRIGHTEST).astype(np.uint8)
    whole = Split(images=to_shape(pixels, shape=shape, sharp=True), labels=table[:, -1].astype(np.int64))
    test = stratified(whole.labels, fraction=test_fraction, seed=_TEST_SEED)
    return Parts(train=select(whole, ~test), test=select(whole, test), labels=labels)


def _read_table(path: Path, *, classes: int) -> NDArray[np.uint8]:
    try:
        text = gzip.decompress(read_bytes(path)).decode("ascii")
        if not text.strip():
            raise ValueError("it is empty")
        table = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.uint8, ndmin=2)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise damaged(path, f"it cannot be read as gzipped csv: {error}", fix=_FIX) from error
    if table.shape[1] != 65 or table[:, :-1].max() > _BRIGHTEST or table[:, -1].max() >= classes:
        raise damaged(path, "its lines are not 64 pixels of 0 to 16 and a label of 0 to 9", fix=_FIX)
    return table
