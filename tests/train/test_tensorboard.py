"""Event files are read back by TensorBoard itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emb.errors import StoreError
from emb.train.tensorboard import Scalars, append_scalars


def read(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """tag -> (step, value, wall time), as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value, event.wall_time) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path):
    file = tmp_path / "events.out.tfevents.1.emb"
    append_scalars(file, [Scalars(step=1, wall_time_s=1e9, values={"loss/train": 2.5, "größe": -1.0})])
    append_scalars(
        file, (Scalars(step=step, wall_time_s=1e9 + step, values={"loss/train": 0.5}) for step in (2, 2**40))
    )
    assert read(tmp_path) == {
        "loss/train": [(1, 2.5, 1e9), (2, 0.5, 1e9 + 2), (2**40, 0.5, 1e9 + 2**40)],
        "größe": [(1, -1.0, 1e9)],
    }


@pytest.mark.slow
def test_a_file_without_scalars_is_a_run_all_the_same(tmp_path):
    append_scalars(tmp_path / "events.out.tfevents.1.emb", [])
    assert read(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        append_scalars(tmp_path / "file" / "events.out.tfevents.1.emb", [])
    assert str(caught.value).splitlines() == [
        f"cannot write TensorBoard's events to {tmp_path / 'file'}",
        "  why: file exists" if "exists" in caught.value.why else "  why: not a directory",
        "  fix: choose another place with --tensorboard",
    ]


def test_writing_needs_no_tensorflow(tmp_path):
    program = (
        "import sys; from pathlib import Path; from emb.train.tensorboard import *;"
        f"append_scalars(Path({str(tmp_path / 'events.out.tfevents.1.emb')!r}), [Scalars(step=1, wall_time_s=0, "
        "values={'loss': 1.0})]); print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
