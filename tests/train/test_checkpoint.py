"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import numpy as np

from emb.train.checkpoint import FILE_NAME, Checkpoint, read, write
from emb.train.history import Epoch, History

HISTORY = History(epochs=(Epoch(loss=0.5, accuracy=0.75, validation_accuracy=0.8, learning_rate=0.1, seconds=1.5),))
CHECKPOINT = Checkpoint(
    fingerprint="abc",
    history=HISTORY,
    variables=(np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros((0,), np.float32)),
)


def test_what_is_written_is_read(tmp_path):
    write(CHECKPOINT, tmp_path / "new" / "folder")
    found = read(tmp_path / "new" / "folder", fingerprint="abc")
    assert found is not None
    assert found.history == HISTORY
    for a, b in zip(found.variables, CHECKPOINT.variables, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [FILE_NAME]


def test_none_there(tmp_path):
    assert read(tmp_path, fingerprint="abc") is None
    assert read(tmp_path / "absent", fingerprint="abc") is None


def test_of_another_training(tmp_path):
    write(CHECKPOINT, tmp_path)
    assert read(tmp_path, fingerprint="abd") is None


def test_damaged_at_any_length(tmp_path):
    write(CHECKPOINT, tmp_path)
    whole = (tmp_path / FILE_NAME).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / FILE_NAME).write_bytes(whole[:length])
        assert read(tmp_path, fingerprint="abc") is None
