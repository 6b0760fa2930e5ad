"""Spreads a training over several devices: each takes an equal part of every batch. Knows no model and no data.

Uses keras.distribution, which Keras implements for its JAX backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from emb.errors import SpecError


def device_count(devices: int | Literal["all"]) -> int:
    """How many devices of the Keras backend are meant: GPUs or TPUs where there are any, else CPU devices.

    Raises SpecError on another backend than JAX if several are wanted, and if fewer are there than wanted.
    """
    import keras

    if devices == 1:
        return 1
    if keras.backend.backend() != "jax":
        raise several_need_jax(devices)
    there = keras.distribution.list_devices()
    if devices == "all":
        return len(there)
    if devices > len(there):
        raise SpecError(
            f"{devices} devices are wanted; JAX finds {len(there)}",
            why=f"it finds {', '.join(there)}",
            fix=f"give --devices {len(there)}; JAX sees GPUs only with its CUDA parts: pip install 'jax[cuda12]'",
        )
    return devices


def several_need_jax(devices: int | Literal["all"]) -> SpecError:
    """The error for several devices on a backend that cannot use them."""
    return SpecError(
        f"--devices {devices} needs the JAX backend",
        why="Keras distributes a training over several devices on JAX alone",
        fix="add --backend jax, or leave --devices out",
    )


@contextmanager
def distributed(devices: int | Literal["all"], *, batch_size: int) -> Iterator[int]:
    """Within the block, models are built and trained on that many devices, each with all weights. Yields the number.

    batch_size: images a step, over all devices together.
    Raises SpecError like `device_count`, and if the batch cannot be split into equal parts.
    """
    import keras

    count = device_count(devices)
    if count == 1:
        yield 1
        return
    if batch_size % count:
        raise SpecError(
            f"a batch of {batch_size} images does not split evenly over {count} devices",
            fix=f"--set train.batch_size={max(1, round(batch_size / count)) * count}, or another number of devices",
        )
    layout = keras.distribution.DataParallel(devices=keras.distribution.list_devices()[:count])
    with layout.scope():
        yield count
