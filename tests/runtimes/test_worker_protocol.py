"""The frames on the pipes, and the warm-up and length of a latency measurement."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from emb.runtimes._frames import read_frame, write_frame
from emb.runtimes._timing import measure

DTYPES = st.sampled_from(["int8", "uint8", "int16", ">i4", "int64", "float16", "float32", ">f8"])


@given(array=DTYPES.flatmap(lambda dtype: arrays(dtype, array_shapes(min_side=0, max_dims=4))))
def test_arrays_travel_unchanged(array: np.ndarray) -> None:
    stream = io.BytesIO()
    write_frame(stream, {"request": "run"}, array)
    write_frame(stream, {"request": "Grüße\n"})
    stream.seek(0)
    header, received = read_frame(stream)
    assert header == {"request": "run"}
    assert received is not None
    assert received.dtype == array.dtype.newbyteorder("=")
    assert received.shape == array.shape
    assert received.tobytes() == array.astype(received.dtype).tobytes()
    assert read_frame(stream) == ({"request": "Grüße\n"}, None)


@given(length=st.integers(0, 200))
def test_a_frame_cut_short_is_the_end(length: int) -> None:
    stream = io.BytesIO()
    write_frame(stream, {}, np.arange(40, dtype=np.float32))
    cut = io.BytesIO(stream.getvalue()[:length])
    with pytest.raises(EOFError):
        read_frame(cut)


class Machine:
    """Runs as slowly as told: the durations of the slices asked for, and a fixed time for each run."""

    def __init__(self, *run_ns: int) -> None:
        self.run_ns = list(run_ns)
        self.slices: list[float] = []

    def run_for(self, duration_s: float) -> np.ndarray:
        run_ns = self.run_ns.pop(0) if len(self.run_ns) > 1 else self.run_ns[0]
        self.slices.append(duration_s)
        return np.full(max(1, int(duration_s * 1e9) // run_ns), run_ns, np.int64)


def test_warm_up_ends_when_the_times_are_steady() -> None:
    machine = Machine(900_000, 500_000, 400_000, 395_000, 390_000)
    samples = measure(machine.run_for, warm_up_s=10, measure_s=0.5, min_runs=1)
    assert machine.slices == [0.05] * 4 + [0.25, 0.25]
    assert set(samples) == {390_000}
    assert samples.sum() == pytest.approx(0.5e9, rel=0.01)


def test_warm_up_ends_at_its_limit() -> None:
    machine = Machine(*range(900_000, 100_000, -100_000))
    measure(machine.run_for, warm_up_s=0.2, measure_s=0.1, min_runs=1)
    assert machine.slices == [0.05] * 4 + [0.1]


def test_slow_runs_are_counted_with_their_own_time() -> None:
    machine = Machine(2_000_000_000)
    samples = measure(machine.run_for, warm_up_s=0, measure_s=5, min_runs=1)
    assert samples.tolist() == [2_000_000_000] * 3


def test_measures_min_runs_however_long_it_takes() -> None:
    machine = Machine(2_000_000_000)
    assert len(measure(machine.run_for, warm_up_s=0, measure_s=0, min_runs=7)) == 7
    assert len(measure(machine.run_for, warm_up_s=0, measure_s=0, min_runs=0)) == 1
