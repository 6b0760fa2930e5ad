"""What a trial is reckoned to take in memory, and that no more run beside each other than have room."""

from __future__ import annotations

from collections import deque

import pytest

from emb.pipeline.build import Order
from emb.pipeline.memory_needs import UNKNOWN_BYTES, memory_needs
from emb.pipeline.workers import _Room

GIB = 2**30
# Peaks in GiB of whole builds without training, benchmarks/README.md, "Full size"; of `emb train` on digits.
CONVERTED = {
    "alexnet": 3.7,
    "overfeat": 7.2,
    "vgg16": 7.0,
    "googlenet": 1.7,
    "resnet50": 2.6,
    "resnet152": 4.0,
    "densenet121": 2.0,
}
TRAINED = {
    ("resnet20-cifar10", 128): 1.1,
    ("resnet20-cifar10", 512): 1.7,
    ("vgg16-cifar10", 128): 1.7,
    ("densenet-cifar10", 64): 3.4,
}


def test_every_peak_that_was_measured_has_room_and_little_more() -> None:
    orders = {name: Order(recipe=name, overrides={"train.epochs": 0}) for name in CONVERTED}
    needs = {name: need / GIB for name, need in memory_needs(orders).items()}
    assert {name: need for name, need in needs.items() if not CONVERTED[name] < need < CONVERTED[name] + 0.85} == {}
    trained = {
        f"{name} {batch}": Order(recipe=name, data="digits", overrides={"train.batch_size": batch})
        for name, batch in TRAINED
    }
    for (name, batch), peak in TRAINED.items():
        assert peak < memory_needs(trained)[f"{name} {batch}"] / GIB < peak + 1


def test_an_order_that_cannot_be_is_no_matter() -> None:
    unfit = Order(recipe="vgg16", overrides={"input.shape": [2, 2, 3]})
    assert memory_needs({"unknown": Order(recipe="lenett"), "unfit": unfit}) == {
        "unknown": UNKNOWN_BYTES,
        "unfit": UNKNOWN_BYTES,
    }


@pytest.mark.parametrize(
    ("free", "beside", "chosen"),
    [
        (16 * GIB, ["big"], "small"),  # two big ones never meet
        (16 * GIB, ["small"], "big2"),
        (16 * GIB, [], "big2"),
        (1 * GIB, [], "big2"),  # alone, whatever it takes
        (1 * GIB, ["small"], None),
        (None, ["small"], None),
        (None, [], "big2"),
    ],
)
def test_what_has_room_beside_the_others_begins(free: int | None, beside: list[str], chosen: str | None) -> None:
    room = _Room(needs={"big": 9 * GIB, "big2": 9 * GIB, "small": 2 * GIB, "small2": 2 * GIB}, bytes=free)
    waiting = deque(name for name in ("big2", "small2") if name not in beside)
    found = room.next_of(waiting, beside)
    assert found == (chosen if chosen != "small" else "small2")
    assert found not in waiting
