"""From what a user asks for to a Recipe: a recipe's name, a recipe file or a model file, with options over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emb.errors import SpecError
from emb.pipeline.recipes import decode_recipe, load_recipe, recipe_names
from emb.registry import nearest
from emb.spec.dataset import DataRequest
from emb.spec.decode import parse_assignment
from emb.spec.pruning import split_text
from emb.spec.recipe import Recipe

_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite", ".onnx")
# Options that take several names, separated by commas.
_LISTS = ("quantize.schemes", "export.formats")


def resolve(
    what: str,
    *,
    data: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> Recipe:
    """The recipe that `what` stands for, with `data`, `overrides` (dotted key -> value) and `assignments` over it.

    "prune" among the overrides is the text that `--prune` takes: "channels:0.5".
    what: a recipe's name, a .toml file, a model file or a SavedModel folder. None among the overrides changes nothing.
    Raises SpecError for whatever cannot be resolved.
    """
    changes = [data_table(data)] if data is not None else []
    changes += [_table(key, value) for key, value in (overrides or {}).items() if value is not None]
    changes += [parse_assignment(text) for text in assignments]
    if what in recipe_names() or what.endswith(".toml"):
        return load_recipe(what, changes=changes)
    path = Path(what)
    if path.suffix.lower() not in _MODEL_SUFFIXES and not path.is_dir():
        known = f"{nearest(what, recipe_names())}; or give a .toml, .keras, .h5, .tflite or .onnx file"
        raise SpecError(f"unknown recipe {what!r}", fix=known)
    if not path.exists():
        raise SpecError(f"there is no model file {path}", fix="check the path")
    if data is None and not any("data" in change for change in changes):
        raise SpecError(
            f"no data for {path}",
            why="emb calibrates and measures a model on images that it was made for",
            fix="name them: --data DIR (one directory per class), --data FILE.npz, or a data set's name",
        )
    # Nobody asked to train somebody's own model.
    own = {"summary": f"the model in {path.name}", "model": {"file": str(path)}, "train": {"epochs": 0}}
    return decode_recipe(own, name=_stem(path), source=f"the build of {path.name}", changes=changes)


def data_request(recipe: Recipe, *, data_dir: Path | None) -> DataRequest:
    """What a loader needs to know to load the recipe's data. Raises DataError if `data_dir` is no directory."""
    from emb.data import search_directories

    shape = recipe.input.shape
    return DataRequest(
        directories=search_directories(data_dir),
        path=Path(recipe.data.path) if recipe.data.path else None,
        shape=(shape[0], shape[1], shape[2]) if shape else None,
        validation_fraction=recipe.data.validation_fraction,
        seed=recipe.train.seed,
        skip_bad=recipe.data.skip_bad,
    )


def data_table(data: str | Path) -> dict[str, Any]:
    """{"data": {"name", "path"}} for a data set's name, a folder or a .npz file. Raises SpecError for anything else."""
    from emb.data import DATA

    text = str(data)
    if text in DATA.names() and text not in ("folder", "arrays"):
        return {"data": {"name": text, "path": ""}}
    path = Path(data)
    if path.suffix.lower() == ".npz":
        return {"data": {"name": "arrays", "path": text}}
    if path.is_dir():
        return {"data": {"name": "folder", "path": text}}
    known = f"{nearest(text, DATA.names())}; or give a folder with one directory per class, or a .npz file"
    raise SpecError(f"there is no data set and no folder {text!r}", fix=known)


def _table(key: str, value: Any) -> dict[str, Any]:
    if key in _LISTS and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if key == "prune" and isinstance(value, str):
        method, goal = split_text(value)
        value = {"method": method, "goal": goal}
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _stem(path: Path) -> str:
    """A name for files: the model's own, without what shells and URLs dislike."""
    return re.sub(r"[^\w.-]+", "-", path.name.removesuffix(path.suffix) or path.name).strip("-.") or "model"
