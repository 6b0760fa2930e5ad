"""What the Edge TPU is predicted to take of every architecture: all of it, or all up to a layer that is named.

Narrow networks: neither widths nor trained weights decide what is mapped. The figures of whole ones stand in
docs/reference/edge-tpu.md.
"""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest

from emb.deploy.edgetpu import UNSPECIFIED, one_group, sentence
from emb.pipeline.check import check
from emb.pipeline.recipes import load_recipe, recipe_names
from emb.zoo import ZOO

pytestmark = pytest.mark.slow

TARGET = "coral-usb-rpi4"

# One of each builder but inception-v4, which takes longest; `make test-family` checks the others.
IN_CI = {
    "alexnet", "densenet-cifar10", "googlenet", "inception-v2", "inception-v3", "lenet", "mlp-shallow",
    "mnist-best", "mnist-cnn", "overfeat", "resnet18", "resnet8-cifar10", "vgg11",
}  # fmt: skip

# What is not mapped first of all; the others are mapped completely.
FALLS = dict.fromkeys(("alexnet", "alexnet-cifar10", "googlenet"), "RSQRT norm1: Operation not supported")

GLOBAL_MEANS = ("densenet", "googlenet", "inception-", "resnet")


def narrowed(name: str) -> list[str]:
    """As fields to set: an eighth of the width; 128 pixels, the least for which a network begins as published."""
    recipe = load_recipe(name)
    builder = recipe.model.builder
    fields = ["model.arguments.width=0.125"] if "width" in signature(ZOO.get(builder).build).parameters else []
    return [*fields, "input.shape=[128, 128, 3]"] if max(recipe.input.shape or (0,)) > 128 else fields


RECIPES = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.family) for name in recipe_names()]


def test_ci_checks_a_recipe_of_every_builder() -> None:
    assert {load_recipe(name).model.builder for name in IN_CI} == set(ZOO.names()) - {"inception-v4"}
    assert set(FALLS) <= set(recipe_names())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_mapped_up_to_a_layer_that_is_named(name: str) -> None:
    found = check(name, target=TARGET, classes=10, assignments=narrowed(name))
    lost = [placement for placement in found.placements if placement.device == "cpu"]
    if name not in FALLS:
        assert (lost, found.faults, found.forms) == ([], (), {})
    else:
        (fault,) = found.faults
        assert fault.why == FALLS[name]
        assert "--set model.arguments.normalization=batch" in fault.fix
        # From there on to the end nothing is mapped, and before it everything.
        assert list(found.placements[-len(lost) :]) == lost
    if load_recipe(name).model.builder.startswith(GLOBAL_MEANS):
        assert [placement.kind for placement in found.placements].count("MEAN") == 1


def table() -> dict[str, tuple[str, int, int]]:
    """The figures of the docs, by the first column: operations mapped, bytes on the chip, bytes streamed."""
    lines = (Path(__file__).parents[2] / "docs/reference/edge-tpu.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {name: (mapped, *(int(count.replace(",", "")) for count in counts)) for name, mapped, *counts in cells}


def test_the_docs_have_every_recipe() -> None:
    assert {name.split("`")[1] for name in table()} == set(recipe_names())


@pytest.mark.parametrize("name", ["lenet", "mlp-shallow", "mnist-cnn", "resnet8-cifar10", "alexnet-cifar10"])
def test_the_docs_are_up_to_date(name: str) -> None:
    found = check(name, target=TARGET, classes=10)
    mapped = sum(placement.device != "cpu" for placement in found.placements)
    figures = (f"{mapped} of {len(found.placements)}", found.cached_bytes, found.streamed_bytes)
    assert table()[f"`{name}`"] == figures


@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.family) for name in FALLS]
)
def test_the_forms_that_it_takes_are_mapped_completely(name: str) -> None:
    found = check(name, target=TARGET, classes=10, assignments=narrowed(name), forms=True)
    assert found.forms_taken["normalization"] == "batch"
    assert ("groups" in found.forms_taken) == name.startswith("alexnet")
    assert (found.faults, {placement.device for placement in found.placements}) == ((), {"edge-tpu"})


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("lenet", {"activation": "tanh", "pooling": "average"}, ""),
        ("mlp-shallow", {"activation": "sigmoid"}, ""),
        ("resnet8-cifar10", {"shortcut": "identity"}, ""),
        ("vgg11", {"batch_norm": True}, ""),
        ("alexnet-cifar10", {"normalization": "lrn-intra"}, "RSQRT norm1: Operation not supported"),
        (
            "alexnet-cifar10",
            {"normalization": "none"},
            f"CONV_2D conv2: {UNSPECIFIED} ({sentence(one_group)}: 2 groups)",
        ),
        ("alexnet-cifar10", {"normalization": "none", "pooling": "l2"}, "SQRT pool1: Operation not supported"),
    ],
)
def test_choices_of_the_builders(name: str, arguments: dict[str, object], why: str) -> None:
    fields = [f"model.arguments.{key}={str(value).lower()}" for key, value in arguments.items()]
    found = check(name, target=TARGET, classes=10, assignments=[*narrowed(name), *fields])
    assert [fault.why for fault in found.faults] == ([why] if why else [])
    if why:
        again = check(name, target=TARGET, classes=10, assignments=[*narrowed(name), *fields], forms=True)
        assert again.faults == ()
