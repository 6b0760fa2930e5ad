"""What all trials of a search have in common, and the order that one of them is. Makes none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emb import data as data_sets
from emb.bench import describe_machine, machine_digest
from emb.pipeline.build import Order
from emb.pipeline.digests import digest_of_path
from emb.pipeline.recipes import load_target
from emb.pipeline.request import data_request, resolve
from emb.pipeline.search_space import space_for
from emb.spec.pruning import NONE
from emb.spec.recipe import Recipe
from emb.spec.search import Question
from emb.spec.space import Parameter, Space
from emb.store import canonical_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """recipe: with all that does not vary.  fields: what the options say of it.  prunes: whether any trial does."""

    recipe: Recipe
    space: Space
    shared: Order
    fields: Mapping[str, Any]
    prunes: bool

    def order(self, values: Mapping[str, Any]) -> Order:
        """A build with these values. What is said of pruning is no matter where it prunes nothing."""
        fields = {**self.fields, **values}
        pruning = values.get("prune", "" if self.recipe.prune.is_asked_for else NONE)
        if pruning == NONE and self.prunes:
            fields = _without_pruning(fields)
        return replace(self.shared, overrides=fields)


def ask_of(shared: Order, fields: Mapping[str, Any], parameters: Sequence[Parameter]) -> Ask:
    """What is to be tried. Every choice and both ends of every range can be resolved to a recipe.

    shared: what every order has.  fields: dotted field -> value, None for what is not said.
    parameters: what is varied; empty for `space_for`'s own.  Raises SpecError for what no trial could be built with.
    """
    fields = {key: value for key, value in fields.items() if value is not None}
    recipe = resolved(replace(shared, overrides=_without_pruning(fields)))
    said = {*fields, *(text.partition("=")[0].strip() for text in shared.assignments)}
    space = space_for(recipe, parameters, said=said)
    prunings = [value for one in space.parameters if one.field == "prune" for value in one.samples]
    prunes = recipe.prune.is_asked_for or any(value != NONE for value in prunings)
    ask = Ask(recipe=recipe, space=space, shared=shared, fields=fields, prunes=prunes)
    first = {one.field: one.samples[0] for one in space.parameters}
    for one in space.parameters:
        for value in one.samples:
            resolved(ask.order({**first, one.field: value}))
    if shared.target is not None:
        load_target(shared.target)
    return ask


def resolved(order: Order) -> Recipe:
    """The recipe of an order. Raises SpecError."""
    return resolve(str(order.recipe), data=order.data, overrides=order.overrides, assignments=order.assignments)


def digest_of(ask: Ask, question: Question) -> str:
    """Of all that decides what a trial is and how it is judged, with the images and, where times count, the machine."""
    request = data_request(ask.recipe, data_dir=ask.shared.data_dir)
    document = {
        "recipe": asdict(ask.recipe),
        "fields": dict(ask.fields),
        "target": asdict(load_target(ask.shared.target)) if ask.shared.target is not None else None,
        "question": str(question),
        "space": [str(one) for one in ask.space.parameters],
        "data": data_sets.digest(ask.recipe.data.name, request),
        "model": digest_of_path(Path(ask.recipe.model.file)) if ask.recipe.model.file else "",
        "machine": machine_digest(describe_machine()) if question.is_timed else "",
    }
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:12]


def _without_pruning(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if not key.startswith("prune.")}
