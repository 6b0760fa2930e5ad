"""Emb's own recipes: each one decodes, states all that decides it, and fits its builder."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from emb.spec.decode import decode
from emb.spec.recipe import Recipe
from emb.zoo import ZOO, check_arguments

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


def _table(name):
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def test_the_recipes_of_lecture_and_papers_are_there():
    assert {"lenet", "lenet-caffe", "mnist-cnn"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_decodes_and_fits_its_builder(name):
    recipe = decode(Recipe, {**_table(name), "name": name}, source=f"{name}.toml")
    assert recipe.summary
    check_arguments(recipe.model.builder, recipe.model.arguments)
    assert recipe.train.epochs > 0


@pytest.mark.parametrize("name", NAMES)
def test_recipe_states_what_decides_the_training(name):
    stated = _table(name)["train"]
    assert {"optimizer", "learning_rate", "schedule", "epochs", "batch_size", "seed"} <= set(stated)


@pytest.mark.parametrize(("name", "parameters"), [("lenet", 61_706), ("lenet-caffe", 431_080), ("mnist-cnn", 289_630)])
def test_parameters_as_the_recipe_says(name, parameters):
    assert f"{parameters:,} parameters" in (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    recipe = decode(Recipe, {**_table(name), "name": name}, source=f"{name}.toml")
    model = ZOO.get(recipe.model.builder).build(input_shape=recipe.input.shape, classes=10, **recipe.model.arguments)
    assert model.count_params() == parameters
