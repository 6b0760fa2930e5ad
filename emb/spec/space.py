"""What a search varies: fields of a recipe over ranges and choices, and their texts. Knows no sampler.

0.25..1        1e-4..1e-2:log        64,128        channels:0.2..0.8 (of a pruning)
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emb.errors import SpecError
from emb.spec.recipe import Scalar

_NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?P<scale>:\w*)?")
# Digits that a value between two ends is rounded to, so that it can be read, and written into a recipe.
_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From low to high, both included. log: drawn evenly by its logarithm.  whole: integers alone."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("ends must be finite")
        if not self.low < self.high:
            raise ValueError(f"{self.low:g} is not below {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.low:g} has no logarithm: of a range on a log scale both ends lie above 0")

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (":log" if self.log else "")

    def value_of(self, drawn: float) -> int | float:
        """What a drawn number stands for: three digits of it, within the ends."""
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{_DIGITS}g}"), self.low), self.high)

    @property
    def ends(self) -> tuple[int | float, int | float]:
        return self.value_of(self.low), self.value_of(self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several values."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if len({(type(value), value) for value in self.values}) != len(self.values):
            raise ValueError("a value is named twice")

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """field: dotted, of the recipe; "prune" is the text that --prune takes.

    prefix: what stands before each value of a range, "channels:" before the share of the MACs.
    """

    field: str
    domain: Range | Choice
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.field}={self.prefix}{self.domain}"

    def value_of(self, drawn: Any) -> Scalar:
        """The value of the field for what a sampler drew."""
        if isinstance(self.domain, Choice):
            choice: Scalar = drawn
            return choice
        value = self.domain.value_of(drawn)
        return f"{self.prefix}{value:g}" if self.prefix else value

    @property
    def samples(self) -> tuple[Scalar, ...]:
        """Values by which one sees whether the recipe takes them: all choices, or both ends."""
        if isinstance(self.domain, Choice):
            return self.domain.values
        return tuple(self.value_of(end) for end in (self.domain.low, self.domain.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """parameters: at least one, each of another field."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        fields = [parameter.field for parameter in self.parameters]
        if not fields:
            raise ValueError("a search needs something to vary")
        if twice := sorted({field for field in fields if fields.count(field) > 1}):
            raise ValueError(f"{twice[0]} is varied twice")

    def __str__(self) -> str:
        return "  ".join(map(str, self.parameters))

    @property
    def size(self) -> int | None:
        """How many different trials there are; None where a range has more than anyone would count."""
        sizes = []
        for parameter in self.parameters:
            domain = parameter.domain
            if isinstance(domain, Range):
                if not domain.whole:
                    return None
                sizes.append(int(domain.high - domain.low) + 1)
            else:
                sizes.append(len(domain.values))
        return math.prod(sizes)


def parameter_of(text: str) -> Parameter:
    """What `--vary` takes: FIELD=LOW..HIGH[:log] or FIELD=A,B,C. Raises SpecError."""
    field, equals, domain = (part.strip() for part in text.partition("="))
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", field):
        raise SpecError(
            f"--vary {text!r} cannot be read",
            why="it does not begin with FIELD=",
            fix="write it as --vary train.learning_rate=1e-4..1e-2:log or --vary train.batch_size=64,128",
        )
    return Parameter(field=field, domain=domain_of(domain, option=f"--vary {text!r}"))


def pruning_parameter_of(text: str) -> Parameter:
    """What `--prune` takes in a search: none,channels:0.5 or channels:0.2..0.8. Raises SpecError."""
    option = f"--prune {text!r}"
    method, colon, goal = text.strip().partition(":")
    if colon and _RANGE.fullmatch(goal.strip()):
        return Parameter(field="prune", domain=domain_of(goal, option=option), prefix=f"{method.strip()}:")
    # Texts, whatever they look like.
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    return Parameter(field="prune", domain=_chosen(parts, option=option))


def domain_of(text: str, *, option: str, log: bool = False) -> Range | Choice:
    """The range or the choices of a text. option: for the message.  log: what a range is that says nothing of it."""
    text = text.strip()
    found = _RANGE.fullmatch(text)
    if not found:
        if ".." in text:
            raise SpecError(
                f"{option} cannot be read",
                why=f"{text!r} is no range of two numbers",
                fix="write it as LOW..HIGH or LOW..HIGH:log, e.g. 1e-4..1e-2:log",
            )
        return _chosen(tuple(_scalar(part.strip()) for part in text.split(",") if part.strip()), option=option)
    scale = found["scale"] or (":log" if log else ":linear")
    if scale not in (":log", ":linear"):
        raise SpecError(
            f"{option} cannot be read", why=f"{scale[1:]!r} is no scale", fix="known: log, linear (the default)"
        )
    whole = all(re.fullmatch(r"[+-]?\d+", found[end]) for end in ("low", "high"))
    try:
        return Range(low=float(found["low"]), high=float(found["high"]), log=scale == ":log", whole=whole)
    except ValueError as error:
        raise SpecError(f"{option} cannot be", why=str(error), fix="correct the range") from None


def _chosen(values: Sequence[Scalar], *, option: str) -> Choice:
    if not values:
        raise SpecError(f"{option} names no value", fix="write A,B,C or LOW..HIGH")
    try:
        return Choice(values=tuple(values))
    except ValueError as error:
        raise SpecError(f"{option} cannot be", why=str(error), fix="name each value once") from None


def _scalar(text: str) -> Scalar:
    """The TOML value, or else a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
