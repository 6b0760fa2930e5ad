"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import numpy as np

from emb.train.checkpoint import FILE_NAME, Checkpoint, read, write
from emb.train.history import Epoch

EPOCHS = (Epoch(loss=0.5, accuracy=0.75, validation_accuracy=0.8, learning_rate=0.1, seconds=1.5),)
CHECKPOINT = Checkpoint(
    fingerprint="abc",
    epochs=EPOCHS,
    variables=(np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.zeros((0,), np.float32)),
    optimizer=tuple(np.full(3, number, np.float32) for number in range(12)),
    kept=(np.ones(2, np.float32),),
    norms=np.arange(8, dtype=np.float32).reshape(4, 2),
)


def test_what_is_written_is_read(tmp_path):
    write(CHECKPOINT, tmp_path / "new" / "folder")
    found = read(tmp_path / "new" / "folder", fingerprint="abc")
    assert found is not None
    assert found.epochs == EPOCHS
    np.testing.assert_array_equal(found.norms, CHECKPOINT.norms)
    for group in ("variables", "optimizer", "kept"):
        for a, b in zip(getattr(found, group), getattr(CHECKPOINT, group), strict=True):
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
    for length in range(0, len(whole), 97):
        (tmp_path / FILE_NAME).write_bytes(whole[:length])
        assert read(tmp_path, fingerprint="abc") is None
