"""Which arguments of emb's builders make forms that the Edge TPU takes, and what to do about what it does not take.

Knows the builders' arguments by name alone: a builder that offers one of these choices calls it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emb.deploy.edgetpu import DATA_TYPE, one_group, sentence
from emb.spec.placement import Placement

FORMS: Mapping[str, Mapping[str, str]] = {
    "normalization": {"lrn": "batch", "lrn-intra": "batch"},
    "groups": {"together": "split"},
    "pooling": {"l2": "max"},
}
"""Argument -> the value that the Edge TPU does not take -> the one in its place.

"groups" changes nothing but the graph; the others are another network, which learns other weights.
"""

_ARGUMENT_BY_KIND = {
    **dict.fromkeys(("RSQRT", "POW", "LOCAL_RESPONSE_NORMALIZATION"), "normalization"),
    **dict.fromkeys(("SQRT", "L2_POOL_2D"), "pooling"),
}


def forms(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What of a builder's arguments, those left at their defaults included, must change; empty if nothing."""
    return {
        name: choices[value]
        for name, choices in FORMS.items()
        if isinstance(value := arguments.get(name), str) and value in choices
    }


def assignments(changes: Mapping[str, str]) -> str:
    """The same as options of the command line."""
    return " ".join(f"--set model.arguments.{name}={value}" for name, value in changes.items())


def told(changes: Mapping[str, str]) -> str:
    """The same as fields of a recipe, in words."""
    return " and ".join(f"model.arguments.{name}={value}" for name, value in changes.items())


def remedy(placement: Placement, changes: Mapping[str, str] | None) -> str:
    """What to do about an operation that is not mapped, in words.

    changes: `forms` of what built the model; None if that is not known.
    """
    if placement.status == DATA_TYPE:
        return "give the int8 .tflite of the same model"
    grouped = placement.detail.startswith(sentence(one_group))
    argument = "groups" if grouped else _ARGUMENT_BY_KIND.get(placement.kind, "")
    if changes is not None and argument in changes:
        return f"choose the forms that it takes, by --forms or by {assignments(changes)}"
    if changes is None and argument:
        values = dict.fromkeys(FORMS[argument].values())
        offered = assignments({argument: next(iter(values))})
        return f"build another form of that layer; emb's recipes that have it take {offered}"
    return "replace that layer"
