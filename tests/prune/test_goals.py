"""What `--prune` takes, and what it says of everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import SpecError
from emb.pipeline.request import resolve
from emb.spec.pruning import Goal, goal_of, split_text
from emb.spec.recipe import PruneSpec


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("channels:0.5", Goal(kind="macs", amount=0.5)),
        ("channels:latency=3x", Goal(kind="latency", amount=3)),
        ("channels:latency=1.5", Goal(kind="latency", amount=1.5)),
        ("channels:bytes=30kB", Goal(kind="bytes", amount=30_000)),
        ("channels:bytes=1.5 MiB", Goal(kind="bytes", amount=1_572_864)),
        ("channels:bytes=28000", Goal(kind="bytes", amount=28_000)),
        ("blocks:0.3", Goal(kind="macs", amount=0.3)),
        ("blocks:latency=1.5x", Goal(kind="latency", amount=1.5)),
        ("blocks:bytes=300kB", Goal(kind="bytes", amount=300_000)),
        ("magnitude:0.9", Goal(kind="sparsity", amount=0.9)),
        ("magnitude:2:4", Goal(kind="pattern", amount=2, of=4)),
        ("cluster:16", Goal(kind="clusters", amount=16)),
    ],
)
def test_goals(text, goal):
    recipe = resolve("lenet", overrides={"prune": text})
    assert recipe.prune.is_asked_for
    assert recipe.prune.target == goal


@given(st.floats(0.0001, 0.9999))
def test_a_goal_reads_back_as_it_is_written(share):
    goal = goal_of("channels", str(share))
    assert goal_of("channels", str(goal)).amount == pytest.approx(share, rel=1e-5)


def test_numbers_of_toml_are_goals_too():
    assert PruneSpec(method="cluster", goal=16.0).target == Goal(kind="clusters", amount=16)
    assert resolve("lenet", assignments=["prune.method=magnitude", "prune.goal=0.5"]).prune.target.amount == 0.5
    assert resolve("lenet", assignments=["prune.method=magnitude", "prune.goal=2:4"]).prune.target.of == 4


@pytest.mark.parametrize(
    ("text", "assigned", "multiple"),
    [
        ("channels:0.5", [], 16),
        ("channels:latency=3x", [], 16),
        ("channels:bytes=30kB", [], 1),
        ("channels:bytes=30kB", ["prune.channel_multiple=4"], 4),
        ("channels:0.5", ["prune.channel_multiple=1"], 1),
        ("channels:0.5", ["quantize.maps=64"], 64),
        ("channels:0.5", ["quantize.maps=8"], 16),
        ("channels:latency=3x", ["quantize.maps=64"], 64),
        ("channels:bytes=30kB", ["quantize.maps=64"], 1),
        ("channels:0.5", ["quantize.maps=64", "prune.channel_multiple=32"], 32),
    ],
)
def test_the_goal_and_the_kernels_decide_of_what_channels_are_a_multiple(text, assigned, multiple):
    assert resolve("lenet", overrides={"prune": text}, assignments=assigned).channel_multiple == multiple


def test_none_takes_a_recipes_pruning_back():
    assert split_text("none") == ("none", "")
    recipe = resolve("lenet", overrides={"prune": "none"}, assignments=())
    assert recipe.prune == PruneSpec()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "channels",
            "prune.goal: is missing: channels takes the share of MACs to remove, 0.5, or latency=3x, or bytes=30kB",
        ),
        ("channels:0", "prune.goal: '0' must lie between 0 and 1; 0 removes nothing"),
        ("channels:1", "prune.goal: '1' must lie between 0 and 1; 1 removes everything"),
        ("channels:nan", "prune.goal: 'nan' must lie between 0 and 1"),
        (
            "channels:half",
            "prune.goal: 'half' cannot be read: channels takes the share of MACs to remove, 0.5, or latency=3x, "
            "or bytes=30kB",
        ),
        ("channels:latncy=3x", "prune.goal: 'latncy=3x' names 'latncy'; did you mean 'latency'? known: bytes, latency"),
        ("channels:latency=fast", "prune.goal: 'latency=fast' cannot be read: 'fast' is no ratio, as 3x is"),
        ("channels:latency=1x", "prune.goal: 'latency=1x' must be more than 1x, which is as fast as before"),
        ("channels:bytes=few", "prune.goal: 'bytes=few' cannot be read: 'few' is no number of bytes, as 30kB is"),
        ("channels:bytes=3kQ", "prune.goal: 'bytes=3kQ' cannot be read: 'kQ' is no unit; known: kB, MB, KiB, MiB"),
        ("channels:bytes=0", "prune.goal: 'bytes=0' must be at least 1 byte"),
        ("magnitude:1", "prune.goal: '1' must lie between 0 and 1; 1 leaves nothing"),
        ("magnitude:4:4", "prune.goal: '4:4' must keep at least 1 and fewer than M weights, with M up to 64"),
        ("magnitude:2:x", "prune.goal: '2:x' is no pattern N:M of two whole numbers, as 2:4 is"),
        ("cluster:1", "prune.goal: '1' must lie between 2 and 128, as int8 knows 255 weights"),
        (
            "cluster:few",
            "prune.goal: 'few' is no whole number; cluster takes the number of different weights in a layer, 16",
        ),
        (
            "chanels:0.5",
            "prune.method: unknown method 'chanels'; did you mean 'channels'? "
            "known: blocks, channels, cluster, magnitude, none",
        ),
    ],
)
def test_bad_goals(text, fault):
    with pytest.raises(SpecError) as caught:
        resolve("lenet", overrides={"prune": text})
    assert str(caught.value) == (
        f"recipe lenet.toml with the options given has a fault\n  why: {fault}\n  fix: correct them and try again"
    )


def test_all_faults_at_once():
    with pytest.raises(SpecError) as caught:
        resolve(
            "lenet",
            overrides={
                "prune": "channels:2",
                "prune.steps": 0,
                "prune.distill": True,
                "prune.epochs": 0,
                "prune.distill_weight": 0.0,
            },
        )
    for fault in (
        "prune.steps: must be at least 1",
        "prune.distill: needs epochs in which to train",
        "prune.distill_weight: must lie in (0, 1]",
        "prune.goal: '2' must lie between 0 and 1",
    ):
        assert fault in str(caught.value)


def test_what_is_of_channels_alone():
    with pytest.raises(SpecError) as caught:
        resolve("lenet", overrides={"prune": "cluster:16", "prune.steps": 3, "prune.criterion": "l1"})
    assert caught.value.why == (
        "prune.steps: are of channels alone; cluster has no steps\n"
        "       prune.criterion: is of channels alone; cluster has none to choose"
    )


@pytest.mark.parametrize("method", ["blocks:0.3", "cluster:16"])
def test_what_has_no_scope(method):
    with pytest.raises(SpecError) as caught:
        resolve("lenet", overrides={"prune": method, "prune.scope": "uniform"})
    assert caught.value.why == f"prune.scope: is of channels and magnitude; {method.split(':')[0]} has none"


def test_an_unknown_criterion():
    with pytest.raises(SpecError) as caught:
        resolve("lenet", overrides={"prune": "channels:0.5", "prune.criterion": "tailor"})
    assert caught.value.why == (
        "prune.criterion: must be one of 'taylor', 'l1', 'l2', 'bn-scale', not 'tailor'; did you mean 'taylor'?"
    )


def test_what_pruning_takes_is_refused_without_it():
    with pytest.raises(SpecError) as caught:
        resolve("lenet", overrides={"prune.distill": True, "prune.epochs": 3})
    assert caught.value.why == (
        "prune.epochs: needs a method, e.g. channels\n       prune.distill: needs a method, e.g. channels"
    )
