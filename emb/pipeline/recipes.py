"""Finds recipes and targets, lays options over them and decodes them. Trains and builds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from emb.errors import SpecError
from emb.registry import nearest
from emb.spec.decode import Fault, decode, merge, read_toml
from emb.spec.pruning import METHODS
from emb.spec.recipe import Recipe
from emb.spec.target import Target


@cache
def shelf(kind: str) -> Path:
    """The folder of emb's own recipes or targets: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / kind
    return installed if installed.is_dir() else package.parent / kind


def recipe_names() -> tuple[str, ...]:
    """The names that `emb build` knows."""
    return tuple(sorted(path.stem for path in shelf("recipes").glob("*.toml")))


def target_names() -> tuple[str, ...]:
    """The names that `--target` knows."""
    return tuple(sorted(path.stem for path in shelf("targets").glob("*.toml")))


def load_recipe(name: str, *, changes: Iterable[Mapping[str, Any]] = ()) -> Recipe:
    """The recipe of a name or of a .toml file, with `changes` laid over it in order.

    Raises SpecError for an unknown name (offering the nearest) or with all faults of the file.
    """
    path = _path_of(name, "recipes", "recipe", recipe_names())
    table = read_toml(path)
    text = path.read_text(encoding="utf-8")
    return decode_recipe(table, name=path.stem, source=f"recipe {path.name}", text=text, changes=changes)


def decode_recipe(
    table: Mapping[str, Any], *, name: str, source: str, text: str = "", changes: Iterable[Mapping[str, Any]] = ()
) -> Recipe:
    """The recipe in `table`, with `changes` laid over it in order. Raises SpecError with all faults.

    source, text: where the table comes from, for the message.
    """
    merged = dict(table)
    for change in changes:
        merged = merge(merged, change)
    if merged != table:
        # A fault may now be an option's, which stands on no line of the file.
        source, text = f"{source} with the options given", ""
    found = _name_faults(merged)
    if "name" in merged:
        found.append(Fault("name", "cannot be set: a recipe is called as its file is"))
    return decode(Recipe, {**merged, "name": name}, source=source, text=text, found=found)


def load_target(name: str) -> Target:
    """The target of a name or of a .toml file. Raises SpecError like load_recipe."""
    path = _path_of(name, "targets", "target", target_names())
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return decode(Target, {**read_toml(path), "name": path.stem}, source=f"target {path.name}", text=text)


def _path_of(name: str, kind: str, noun: str, names: tuple[str, ...]) -> Path:
    if name.endswith(".toml") or os.sep in name:
        return Path(name)
    if name in names:
        return shelf(kind) / f"{name}.toml"
    raise SpecError(f"unknown {noun} {name!r}", fix=nearest(name, names))


def _name_faults(table: Mapping[str, Any]) -> list[Fault]:
    """Faults of the names in a recipe's table. Names are resolved now, not after an hour of training."""
    from emb.data import DATA
    from emb.quantize import SCHEMES
    from emb.zoo import ZOO, check_arguments

    def entry(section: str, key: str) -> Any:
        values = table.get(section)
        return values.get(key) if isinstance(values, Mapping) else None

    faults = []
    data, builder, arguments = entry("data", "name"), entry("model", "builder"), entry("model", "arguments")
    if isinstance(data, str) and data not in DATA.names():
        faults.append(Fault("data.name", f"unknown data set {data!r}; {nearest(data, DATA.names())}"))
    for scheme in entry("quantize", "schemes") or ():
        if isinstance(scheme, str) and scheme not in SCHEMES.names():
            faults.append(Fault("quantize.schemes", f"unknown scheme {scheme!r}; {nearest(scheme, SCHEMES.names())}"))
    if isinstance(builder, str) and builder and builder not in ZOO.names():
        faults.append(Fault("model.builder", f"unknown model {builder!r}; {nearest(builder, ZOO.names())}"))
    elif isinstance(builder, str) and builder and isinstance(arguments, Mapping):
        try:
            check_arguments(builder, arguments)
        except SpecError as error:
            faults.append(Fault("model.arguments", error.why))
    method = entry("prune", "method")
    if isinstance(method, str) and method not in METHODS:
        faults.append(Fault("prune.method", f"unknown method {method!r}; {nearest(method, METHODS)}"))
    return faults
