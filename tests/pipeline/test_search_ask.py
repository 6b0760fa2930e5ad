"""What a search varies where nobody says, values of the fields' own types, and the order that a trial is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from emb.errors import SpecError
from emb.pipeline.build import Order
from emb.pipeline.recipes import load_recipe
from emb.pipeline.search_ask import Ask, ask_of, digest_of, resolved
from emb.pipeline.search_space import space_for
from emb.spec.search import METRICS, Objective, Question, constraint_of
from emb.spec.space import Parameter, parameter_of, pruning_parameter_of

QUESTION = Question(objectives=(Objective(metric=METRICS["accuracy"], direction="maximize"),))


def asked(*parameters: Parameter, fields: Mapping[str, Any] | None = None, **order: Any) -> Ask:
    return ask_of(Order(recipe="lenet", **order), fields or {}, parameters)


@pytest.mark.parametrize(
    ("recipe", "space"),
    [
        ("lenet", "model.arguments.width=0.25..1.5:log  train.learning_rate=0.000666667..0.006:log"),
        ("mnist-cnn", "train.learning_rate=0.000666667..0.006:log"),
    ],
)
def test_without_a_word_the_width_and_the_learning_rate_are_varied(recipe: str, space: str) -> None:
    assert str(space_for(load_recipe(recipe), [])) == space


def test_what_is_set_is_not_varied_of_itself() -> None:
    ask = asked(assignments=("train.learning_rate=0.01",))
    assert [one.field for one in ask.space.parameters] == ["model.arguments.width"]
    with pytest.raises(SpecError) as caught:
        asked(assignments=("train.learning_rate=0.01", "model.arguments.width=0.5"))
    assert str(caught.value) == (
        "there is nothing to vary\n"
        "  why: the model has no width that is not set, and no training whose learning rate is not\n"
        "  fix: name it: --prune channels:0.2..0.8, --quantize int8,int16x8, or --vary FIELD=LOW..HIGH"
    )


@pytest.mark.parametrize("said", [{"assignments": ("train.epochs = 3",)}, {"fields": {"train.epochs": 3}}])
def test_what_is_set_and_varied_is_told(said: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        asked(parameter_of("train.epochs=1..3"), **said)
    assert str(caught.value) == "train.epochs is both set and varied\n  fix: leave out one of the two"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("train.weight_decay=0..1", False),
        ("train.epochs=2..8", True),
        ("model.arguments.width=1..2", False),
        ("prune.goal=0..1", False),
        ("quantize.lanes=1..8", True),
    ],
)
def test_a_range_takes_the_type_of_its_field(text: str, whole: bool) -> None:
    (parameter,) = space_for(load_recipe("lenet"), [parameter_of(text)]).parameters
    assert parameter.domain.whole is whole


@pytest.mark.parametrize("field", ["data.name", "data.validation_fraction", "input.pixels", "train.seed", "name"])
def test_what_decides_the_judging_images_is_not_varied(field: str) -> None:
    with pytest.raises(SpecError, match=f"a search cannot vary {field}"):
        space_for(load_recipe("lenet"), [parameter_of(f"{field}=1,2")])


def test_a_trial_that_prunes_nothing_says_nothing_of_pruning() -> None:
    ask = asked(
        pruning_parameter_of("none,channels:0.5"),
        parameter_of("prune.learning_rate=0.001..0.01"),
        fields={"prune.epochs": 2},
    )
    plain = ask.order({"prune": "none", "prune.learning_rate": 0.002})
    assert not resolved(plain).prune.is_asked_for
    pruned = resolved(ask.order({"prune": "channels:0.5", "prune.learning_rate": 0.002})).prune
    assert (str(pruned.target), pruned.epochs, pruned.learning_rate) == ("0.5", 2, 0.002)


def test_pruning_options_without_pruning_are_told() -> None:
    with pytest.raises(SpecError, match=r"prune\.epochs: needs a method"):
        asked(fields={"prune.epochs": 2})


def test_a_study_is_of_one_question_to_one_recipe_with_one_set_of_images() -> None:
    width = parameter_of("model.arguments.width=0.5..1")
    first = digest_of(asked(width), QUESTION)
    assert digest_of(asked(width), QUESTION) == first
    smaller = Question(objectives=QUESTION.objectives, constraints=(constraint_of("bytes<=20kB"),))
    others = [
        digest_of(asked(width), smaller),
        digest_of(asked(parameter_of("model.arguments.width=0.5..2")), QUESTION),
        digest_of(asked(width, fields={"train.epochs": 3}), QUESTION),
        digest_of(asked(width, assignments=("data.validation_fraction=0.2",)), QUESTION),
        digest_of(asked(width, target="host"), QUESTION),
    ]
    assert len({first, *others}) == 1 + len(others)
    spelled = Question(objectives=QUESTION.objectives, constraints=(constraint_of("bytes <= 20000"),))
    assert digest_of(asked(width), spelled) == digest_of(asked(width), smaller)
