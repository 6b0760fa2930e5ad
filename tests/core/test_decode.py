"""The one decoder: values in, all faults out."""

from __future__ import annotations

import pytest

from emb.errors import SpecError
from emb.spec.decode import decode, merge, parse_assignment, read_toml
from emb.spec.recipe import Recipe

WRONG = """\
summary = 3

[model]
builder = "lenet"

[train]
epoch = 3
batch_size = "many"
optimizer = "sdg"
learning_rate = -1.0

[input]
shape = [28, 28]
"""


def test_every_fault_is_told_at_once_with_its_line(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(WRONG)
    with pytest.raises(SpecError) as raised:
        decode(Recipe, {**read_toml(path), "name": "wrong"}, source="wrong.toml", text=WRONG)
    assert str(raised.value) == (
        "wrong.toml has 5 faults\n"
        "  why: line 1, summary: must be a string, not a whole number (3)\n"
        "       line 13, input.shape: must be three positive numbers: height, width, channels\n"
        "       line 7, train.epoch: is unknown; did you mean 'epochs'?\n"
        "       line 9, train.optimizer: must be one of 'sgd', 'adam', not 'sdg'; did you mean 'sgd'?\n"
        "       line 8, train.batch_size: must be a whole number, not a string ('many')\n"
        "  fix: correct them and try again"
    )


def test_an_invariant_is_told_when_the_types_are_right():
    table = {"name": "x", "model": {"builder": "lenet"}, "train": {"learning_rate": -1}}
    with pytest.raises(SpecError) as raised:
        decode(Recipe, table, source="x.toml")
    assert raised.value.why == "train.learning_rate: must be above 0"


def test_a_missing_entry_is_named():
    with pytest.raises(SpecError) as raised:
        decode(Recipe, {"name": "x"}, source="x.toml")
    assert raised.value.why == "model: is missing"


def test_whole_numbers_serve_as_numbers_and_lists_as_tuples():
    table = {"name": "x", "model": {"builder": "m", "arguments": {"a": 1}}, "train": {"learning_rate": 1}}
    recipe = decode(Recipe, {**table, "input": {"shape": [8, 8, 1]}}, source="x.toml")
    assert recipe.train.learning_rate == 1.0
    assert recipe.input.shape == (8, 8, 1)
    assert recipe.model.arguments == {"a": 1}


@pytest.mark.parametrize("value", [True, 1.5, "3"])
def test_nothing_is_converted_behind_the_writers_back(value):
    table = {"name": "x", "model": {"builder": "m"}, "train": {"epochs": value}}
    with pytest.raises(SpecError, match=r"x\.toml has a fault"):
        decode(Recipe, table, source="x.toml")


def test_toml_errors_name_file_and_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(SpecError) as raised:
        read_toml(path)
    assert raised.value.what == f"{path} is not valid TOML"
    assert "line 2" in raised.value.why


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("train.epochs=3", {"train": {"epochs": 3}}),
        ("data.name=mnist", {"data": {"name": "mnist"}}),
        ("input.shape=[28, 28, 1]", {"input": {"shape": [28, 28, 1]}}),
        ("train.augment.flip=true", {"train": {"augment": {"flip": True}}}),
        ("a=x=y", {"a": "x=y"}),
    ],
)
def test_assignments(text, table):
    assert parse_assignment(text) == table


@pytest.mark.parametrize("text", ["train.epochs", "=3", "a..b=3", ""])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(SpecError, match="is not an assignment"):
        parse_assignment(text)


def test_merge_goes_table_by_table():
    base = {"train": {"epochs": 3, "seed": 1}, "summary": "x"}
    assert merge(base, {"train": {"epochs": 5}}) == {"train": {"epochs": 5, "seed": 1}, "summary": "x"}
    assert base["train"]["epochs"] == 3
