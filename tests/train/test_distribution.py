"""Several devices: JAX alone, never more than there are, equal parts of a batch. Virtual CPU devices stand for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from emb.errors import SpecError
from emb.train.distribution import device_count, distributed


def on_jax(program: str) -> str:
    """What a program prints that sees two devices. Its SpecErrors are printed."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    whole = (
        "from emb.errors import SpecError\nfrom emb.train.distribution import *\nimport keras\n"
        f"try:\n    {program}\nexcept SpecError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_one_device_is_there_on_every_backend():
    assert device_count(1) == 1
    with distributed(1, batch_size=7) as count:
        assert count == 1


@pytest.mark.parametrize("devices", [2, "all"])
def test_several_need_jax(devices):
    with pytest.raises(SpecError) as caught:
        device_count(devices)
    assert str(caught.value) == (
        f"--devices {devices} needs the JAX backend\n"
        "  why: Keras distributes a training over several devices on JAX alone\n"
        "  fix: add --backend jax, or leave --devices out"
    )


@pytest.mark.slow
def test_all_are_those_that_jax_finds():
    assert on_jax("print(device_count('all'), device_count(2), device_count(1))") == "2 2 1"


@pytest.mark.slow
def test_more_than_there_are():
    assert on_jax("device_count(3)") == (
        "3 devices are wanted; JAX finds 2\n"
        "  why: it finds cpu:0, cpu:1\n"
        "  fix: give --devices 2; JAX sees GPUs only with its CUDA parts: pip install 'jax[cuda12]'"
    )


@pytest.mark.slow
def test_a_batch_that_does_not_split():
    assert on_jax("distributed(2, batch_size=33).__enter__()") == (
        "a batch of 33 images does not split evenly over 2 devices\n"
        "  fix: --set train.batch_size=32, or another number of devices"
    )


@pytest.mark.slow
def test_within_the_block_variables_are_on_all_devices_and_outside_on_one():
    program = (
        "inside = distributed('all', batch_size=32); inside.__enter__(); "
        "here = keras.layers.Dense(3); here.build((None, 2)); inside.__exit__(None, None, None); "
        "there = keras.layers.Dense(3); there.build((None, 2)); "
        "print(len(here.kernel.value.sharding.device_set), len(there.kernel.value.sharding.device_set))"
    )
    assert on_jax(program) == "2 1"
