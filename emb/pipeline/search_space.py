"""The space of a search over a recipe: its fields' own types, and what is varied where nobody says. Draws nothing."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from emb.errors import SpecError
from emb.spec.recipe import Recipe
from emb.spec.space import Choice, Parameter, Range, Space

_WIDTH = "model.arguments.width"
# What decides by which images a trial is judged: trials of different ones cannot be compared.
_JUDGES = ("data", "input", "name")
_SEED = "train.seed"


def space_for(recipe: Recipe, wanted: Sequence[Parameter], *, said: Collection[str] = ()) -> Space:
    """What is to be varied, each over values of the field's own type; without any, what usually matters.

    said: fields that options set.  Whether the recipe has the fields and takes the values is not looked at here.
    Raises SpecError for what no search may vary, for what is also set, and for a range of what is no number.
    """
    for one in wanted:
        if one.field in said:
            raise SpecError(f"{one.field} is both set and varied", fix="leave out one of the two")
    wanted = wanted or [one for one in _usual(recipe) if one.field not in said]
    if not wanted:
        raise SpecError(
            "there is nothing to vary",
            why="the model has no width that is not set, and no training whose learning rate is not",
            fix="name it: --prune channels:0.2..0.8, --quantize int8,int16x8, or --vary FIELD=LOW..HIGH",
        )
    try:
        return Space(parameters=tuple(_typed(recipe, one) for one in wanted))
    except ValueError as error:
        raise SpecError(f"the search cannot be: {error}", fix="name each field once") from None


def _typed(recipe: Recipe, parameter: Parameter) -> Parameter:
    field, domain = parameter.field, parameter.domain
    if field.split(".")[0] in _JUDGES or field == _SEED:
        raise SpecError(
            f"a search cannot vary {field}",
            why="it decides which images judge a trial, and trials of different ones cannot be compared",
            fix="vary something else; for several seeds of one build there is emb sweep --seeds",
        )
    if isinstance(domain, Choice) or parameter.prefix:
        return parameter
    kind = _type_of(recipe, field)
    if kind is float:
        return replace(parameter, domain=replace(domain, whole=False))
    if kind is int and not domain.whole:
        raise SpecError(
            f"{field} is a whole number, which {domain} is no range of",
            fix="write whole numbers as both ends, e.g. 2..8",
        )
    if kind not in (int, None):
        raise SpecError(f"{field} is no number, which {domain} is a range of", fix="list its values: A,B,C")
    return parameter


def _type_of(recipe: Recipe, field: str) -> Any:
    """The type of a field, of an argument as its builder declares it. None where that is not known."""
    kind: Any = Recipe
    *tables, last = field.split(".")
    for table in tables:
        kind = typing.get_type_hints(kind).get(table) if is_dataclass(kind) else None
    if is_dataclass(kind):
        found = typing.get_type_hints(kind).get(last)
        return found if found in (int, float, str, bool) or found is None else _wide(found)
    if tables == ["model", "arguments"] and recipe.model.builder:
        annotation = _arguments(recipe).get(last)
        return annotation if annotation in (int, float, str, bool) else None
    return None


def _wide(hint: Any) -> Any:
    """A union that takes a number is one for a range; nothing else is."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return float if is_union and float in typing.get_args(hint) else str


def _arguments(recipe: Recipe) -> Mapping[str, Any]:
    from emb.zoo import ZOO

    parameters = inspect.signature(ZOO.get(recipe.model.builder).build).parameters
    return {name: parameter.annotation for name, parameter in parameters.items()}


def _usual(recipe: Recipe) -> list[Parameter]:
    """The network's width and the learning rate, if there are such. Pruning, which trains again, is to be asked for."""
    found = []
    if recipe.model.builder and "width" in _arguments(recipe):
        width = float(recipe.model.arguments.get("width", 1.0))  # type: ignore[arg-type]
        found.append(Parameter(field=_WIDTH, domain=Range(low=width / 4, high=width * 1.5, log=True)))
    if recipe.train.epochs:
        rate = recipe.train.learning_rate
        found.append(Parameter(field="train.learning_rate", domain=Range(low=rate / 3, high=rate * 3, log=True)))
    return found
