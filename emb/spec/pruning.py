"""What pruning shall reach, as a value and as the text that asks for it. Knows no method and no model.

| method    | goals                                                                              |
|-----------|------------------------------------------------------------------------------------|
| channels  | 0.5 (share of the MACs to remove), latency=3x (so many times faster), bytes=30kB   |
| blocks    | the same                                                                           |
| magnitude | 0.9 (share of the weights to set to 0), 2:4 (so many of each 4 inputs are kept)    |
| cluster   | 16 (different weights in a layer)                                                  |
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

Kind = Literal["macs", "latency", "bytes", "sparsity", "pattern", "clusters"]

NONE = "none"
MOST_CLUSTERS = 128
MOST_OF_PATTERN = 64
_FORMS: Mapping[str, str] = {
    "channels": "the share of MACs to remove, 0.5, or latency=3x, or bytes=30kB",
    "blocks": "the share of MACs to remove, 0.3, or latency=1.5x, or bytes=300kB",
    "magnitude": "the share of weights to set to 0, 0.9, or the pattern N:M, 2:4",
    "cluster": "the number of different weights in a layer, 16",
}
METHODS = (*_FORMS, NONE)
# Methods whose result is a smaller network, not one of other weights.
SMALLER = ("channels", "blocks")
_UNITS: Mapping[str, int] = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """kind and amount together: macs, share of them to remove; latency, how many times faster; bytes, of the int8
    .tflite; sparsity, share of the weights to set to 0; pattern, so many weights that stay of each `of` neighbours;
    clusters, different weights in a layer.
    """

    kind: Kind
    amount: float
    of: int = 0

    def __str__(self) -> str:
        """As it is written in a recipe."""
        if self.kind == "latency":
            return f"latency={self.amount:g}x"
        if self.kind == "bytes":
            return f"bytes={self.amount:.0f}"
        return f"{self.amount:.0f}:{self.of}" if self.kind == "pattern" else f"{self.amount:g}"


def split_text(text: str) -> tuple[str, str]:
    """(method, goal) of what `--prune` takes: "channels:bytes=30kB", "magnitude:2:4", "none"."""
    method, _, goal = text.strip().partition(":")
    return method.strip(), goal.strip()


def goal_of(method: str, text: str) -> Goal:
    """The goal that a text says for one of the methods above. Raises ValueError that opens with "goal"."""
    if not text:
        raise ValueError(f"goal is missing: {method} takes {_FORMS[method]}")
    goal: Goal = _PARSERS[method](text)
    return goal


def _smaller(method: str, text: str) -> Goal:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        return Goal(kind="macs", amount=_share(method, text, said=("removes nothing", "removes everything")))
    if name == "latency":
        return Goal(kind="latency", amount=_ratio(text, value))
    if name == "bytes":
        return Goal(kind="bytes", amount=_bytes(text, value))
    close = difflib.get_close_matches(name, ["latency", "bytes"], n=1)
    offer = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"goal {text!r} names {name!r}; {offer}known: bytes, latency")


def _magnitude(text: str) -> Goal:
    if ":" not in text:
        return Goal(kind="sparsity", amount=_share("magnitude", text, said=("changes nothing", "leaves nothing")))
    kept, _, of = (part.strip() for part in text.partition(":"))
    if not (kept.isdecimal() and of.isdecimal()):
        raise ValueError(f"goal {text!r} is no pattern N:M of two whole numbers, as 2:4 is")
    if not 1 <= int(kept) < int(of) <= MOST_OF_PATTERN:
        raise ValueError(f"goal {text!r} must keep at least 1 and fewer than M weights, with M up to {MOST_OF_PATTERN}")
    return Goal(kind="pattern", amount=int(kept), of=int(of))


def _cluster(text: str) -> Goal:
    if not text.isdecimal():
        raise ValueError(f"goal {text!r} is no whole number; cluster takes {_FORMS['cluster']}")
    if not 2 <= int(text) <= MOST_CLUSTERS:
        raise ValueError(f"goal {text!r} must lie between 2 and {MOST_CLUSTERS}, as int8 knows 255 weights")
    return Goal(kind="clusters", amount=int(text))


_PARSERS: Mapping[str, Callable[[str], Goal]] = {
    **{method: partial(_smaller, method) for method in SMALLER},
    "magnitude": _magnitude,
    "cluster": _cluster,
}


def _share(method: str, text: str, *, said: tuple[str, str]) -> float:
    """A number between 0 and 1. said: what 0 and 1 would do."""
    try:
        share = float(text)
    except ValueError:
        raise ValueError(f"goal {text!r} cannot be read: {method} takes {_FORMS[method]}") from None
    if not 0 < share < 1:
        why = f"; {share:g} {said[int(share)]}" if share in (0, 1) else ""
        raise ValueError(f"goal {text!r} must lie between 0 and 1{why}")
    return share


def _ratio(text: str, value: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[x×]?", value)
    if not found:
        raise ValueError(f"goal {text!r} cannot be read: {value!r} is no ratio, as 3x is")
    if float(found[1]) <= 1:
        raise ValueError(f"goal {text!r} must be more than 1x, which is as fast as before")
    return float(found[1])


def _bytes(text: str, value: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value)
    if not found:
        raise ValueError(f"goal {text!r} cannot be read: {value!r} is no number of bytes, as 30kB is")
    if found[2].lower() not in _UNITS:
        raise ValueError(f"goal {text!r} cannot be read: {found[2]!r} is no unit; known: kB, MB, KiB, MiB")
    count = round(float(found[1]) * _UNITS[found[2].lower()])
    if count < 1:
        raise ValueError(f"goal {text!r} must be at least 1 byte")
    return count
