"""The arguments of emb's builders that the Edge TPU asks for, and the remedies that name them."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from emb.deploy.edgetpu import DATA_TYPE, UNSPECIFIED, UNSUPPORTED, one_group, sentence
from emb.deploy.edgetpu_forms import FORMS, assignments, forms, remedy
from emb.spec.placement import Placement


def test_what_must_change_is_named_and_nothing_else() -> None:
    as_published = {"normalization": "lrn", "groups": "together", "pooling": "max", "width": 0.5}
    assert forms(as_published) == {"normalization": "batch", "groups": "split"}
    assert forms({"normalization": "none", "groups": "split", "pooling": "l2"}) == {"pooling": "max"}
    assert forms({"normalization": "lrn-intra"}) == {"normalization": "batch"}
    assert forms({"pooling": "average", "depth": 16}) == {}
    assert forms({"groups": 2}) == {}


@pytest.mark.parametrize("argument", FORMS)
def test_some_builder_of_the_zoo_has_each_choice(argument: str) -> None:
    from emb.zoo import ZOO

    choices = set()
    for name in ZOO.names():
        parameters = inspect.signature(ZOO.get(name).build).parameters
        if argument in parameters:
            choices |= set(get_args(parameters[argument].annotation))
    assert choices >= set(FORMS[argument]) | set(FORMS[argument].values())


def test_as_options_of_the_command_line() -> None:
    changes = {"normalization": "batch", "groups": "split"}
    assert assignments(changes) == "--set model.arguments.normalization=batch --set model.arguments.groups=split"
    assert assignments({}) == ""


def lost(kind: str, status: str = UNSUPPORTED, detail: str = "") -> Placement:
    return Placement(operation="x", kind=kind, device="cpu", status=status, detail=detail)


GROUPED = lost("CONV_2D", UNSPECIFIED, f"{sentence(one_group)}: 2 groups")


SET = "choose the forms that it takes, by --forms or by --set model.arguments."
OFFER = "build another form of that layer; emb's recipes that have it take --set model.arguments."


@pytest.mark.parametrize(
    ("placement", "changes", "said"),
    [
        (lost("CONV_2D", DATA_TYPE), {"groups": "split"}, "give the int8 .tflite of the same model"),
        (
            lost("RSQRT"),
            {"normalization": "batch", "groups": "split"},
            f"{SET}normalization=batch --set model.arguments.groups=split",
        ),
        (GROUPED, {"groups": "split"}, f"{SET}groups=split"),
        (GROUPED, None, f"{OFFER}groups=split"),
        (lost("POW"), None, f"{OFFER}normalization=batch"),
        (lost("SQRT"), {"pooling": "max"}, f"{SET}pooling=max"),
        # Nothing that the recipe's builder offers would help.
        (lost("RSQRT"), {}, "replace that layer"),
        (lost("ELU"), {"groups": "split"}, "replace that layer"),
        (lost("CONV_2D", UNSPECIFIED, "A convolution must have …"), None, "replace that layer"),
    ],
)
def test_remedies(placement: Placement, changes: dict[str, str] | None, said: str) -> None:
    assert remedy(placement, changes) == said
