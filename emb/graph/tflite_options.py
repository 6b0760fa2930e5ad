"""Turns the options table of a TFLite operation into options of the common vocabulary. Reads no buffers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from emb.errors import ModelError
from emb.graph.model import Option

Shape = tuple[int, ...] | None
Integers = tuple[int, ...] | None

_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL"})
_PADDINGS = frozenset({"PAD", "PADV2", "MIRROR_PAD"})
# Axes 1 and 2 of these weights are height and width: OHWI for convolutions, 1HWO for the depthwise one.
_WEIGHTS_WITH_KERNEL = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
# Keys of the schema that are replaced by one pair of the vocabulary: name -> (height's key, width's key).
_PAIRS = {
    "stride": ("stride_h", "stride_w"),
    "dilation": ("dilation_h_factor", "dilation_w_factor"),
    "kernel": ("filter_height", "filter_width"),
}


def options_of(
    schema: Any, operator: Any, *, kind: str, name: str, shapes: Sequence[Shape], integers: Sequence[Integers]
) -> Mapping[str, Option]:
    """The options of one operator; shapes and small integer constants are those of its inputs, in order.

    Raises ModelError for a kernel, stride or dilation below 1.
    """
    options = _scalars(schema, operator)
    activation = options.pop("fused_activation_function", 0)
    names = {code: text for text, code in vars(schema.ActivationFunctionType).items()}
    if activation:
        options["activation"] = str(names.get(activation, f"ACTIVATION_{activation}"))
    if "padding" in options:
        options["padding"] = "SAME" if options["padding"] == schema.Padding.SAME else "VALID"
    for pair, (height, width) in _PAIRS.items():
        if height in options and width in options:
            options[pair] = (int(options.pop(height)), int(options.pop(width)))
    options.update(_from_inputs(kind, shapes, integers))
    for pair in ("kernel", "stride", "dilation"):
        value = options.get(pair)
        if isinstance(value, tuple) and min(value) < 1:
            raise ModelError(
                f"{kind} {name!r} has the {pair} {value}",
                why="height and width of it must be at least 1",
                fix="export the model again, or fetch the file again if it was downloaded",
            )
    return options


def _from_inputs(kind: str, shapes: Sequence[Shape], integers: Sequence[Integers]) -> dict[str, Option]:
    """What TFLite keeps in an operation's further inputs, and the vocabulary in its options."""
    second = integers[1] if len(integers) > 1 else None
    if kind in _REDUCTIONS and second is not None:
        return {"axes": second}
    if kind == "TRANSPOSE" and second is not None:
        return {"perm": second}
    if kind == "STRIDED_SLICE" and len(integers) > 3 and integers[3] is not None:
        return {"strides": integers[3]}
    if kind in _PADDINGS and second is not None and len(second) == 8:  # (before, after) of N, H, W, C
        return {"padding": "EXPLICIT", "pads": (second[2], second[4], second[3], second[5])}
    weights = shapes[1] if len(shapes) > 1 else None
    if kind not in _WEIGHTS_WITH_KERNEL or weights is None or len(weights) != 4:
        return {}
    found: dict[str, Option] = {"kernel": weights[1:3]}
    data = shapes[0]
    if kind == "CONV_2D" and data is not None and len(data) == 4 and weights[3] > 0:
        found["groups"] = max(data[3] // weights[3], 1)
    return found


def _scalars(schema: Any, operator: Any) -> dict[str, Any]:
    """All numbers of the options table under their names in snake case; vectors and texts are left out."""
    codes = {code: text for text, code in vars(schema.BuiltinOptions).items() if isinstance(code, int)}
    table = operator.BuiltinOptions()
    cls = getattr(schema, codes.get(operator.BuiltinOptionsType(), "NONE"), None)
    if table is None or cls is None:
        return {}
    options = cls()
    options.Init(table.Bytes, table.Pos)
    found = {}
    for name in _scalar_accessors(cls):
        value = getattr(options, name)()
        if isinstance(value, bool | int | float):
            found[re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()] = value
    return found


def _scalar_accessors(cls: type) -> list[str]:
    """The accessors without arguments: no vector, and none of a vector's companions (Length, IsNone, AsNumpy)."""
    names = [name for name, value in vars(cls).items() if callable(value) and name[0].isupper()]
    vectors = [name for name in names if f"{name}Length" in names]
    excluded = {f"{vector}{suffix}" for vector in vectors for suffix in ("", "Length", "AsNumpy", "IsNone")}
    return [name for name in names if name != "Init" and name not in excluded]
