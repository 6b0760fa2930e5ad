"""Weights to begin a training with: ImageNet's, as keras.applications publishes them, or those of a .keras file.

Finds and carries them over. Trains nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emb.errors import ModelError, SpecError
from emb.spec.recipe import ModelSpec, Recipe

if TYPE_CHECKING:
    import keras

IMAGENET = "imagenet"
IMAGENET_CLASSES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One file of weights. application: of keras.applications.  depth: of the builder, None if it has no such argument.

    md5: hex, the only checksum that keras states.
    """

    builder: str
    application: str
    preprocessing: str
    url: str
    md5: str
    depth: int | None = None

    @property
    def title(self) -> str:
        """What a recipe says to get this network."""
        return self.builder if self.depth is None else f"{self.builder} of depth {self.depth}"


@cache
def published() -> tuple[Published, ...]:
    """All that pretrained.toml lists."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    base = table["base"]
    return tuple(Published(url=f"{base}/{entry.pop('path')}", **entry) for entry in table["weights"])


def prepared(recipe: Recipe) -> Recipe:
    """The recipe with the preprocessing that its weights were trained with, if it asks for ImageNet's.

    Raises SpecError if there are none for its network, or if it states another preprocessing or a width.
    """
    if recipe.model.weights != IMAGENET:
        return recipe
    found = _find(recipe.model)
    arguments = dict(recipe.model.arguments)
    stated = arguments.setdefault("preprocessing", found.preprocessing)
    if stated != found.preprocessing:
        raise SpecError(
            f'preprocessing = "{stated}" does not fit the weights of {found.application}',
            why=f'they were trained with "{found.preprocessing}", and other pixels would mean nothing to them',
            fix=f'set model.arguments.preprocessing to "{found.preprocessing}", or leave it out',
        )
    return replace(recipe, model=replace(recipe.model, arguments=arguments))


def fetch(recipe: Recipe, *, progress: Callable[[str, int, int], None] | None = None) -> Path | None:
    """The file of the weights that the recipe begins with; None if it begins with random ones.

    ImageNet's are downloaded into the user's cache unless they lie there. Raises ModelError for a file that is not
    there, DataError without a connection.
    """
    weights = recipe.model.weights
    if not weights:
        return None
    if weights == IMAGENET:
        return _downloaded(_find(recipe.model), progress)
    path = Path(weights)
    if not path.is_file():
        raise ModelError(
            f"there are no weights at {path}",
            fix='give a .keras file, or "imagenet" for the published ones',
        )
    return path


def give(model: keras.Model, recipe: Recipe, *, path: Path, trust: bool) -> None:
    """Carry the weights in `path` over to `model`; the last dense layer keeps its own where the classes differ.

    Raises ModelError, naming the first layer that does not fit, and then changes nothing.
    """
    from emb.zoo import carry_over

    found = _find(recipe.model) if recipe.model.weights == IMAGENET else None
    source = _application(found, path) if found else _keras_model(path, trust=trust)
    carry_over(
        source,
        model,
        skip_head=source.output_shape[-1] != model.output_shape[-1],
        reverse_channels=found is not None and found.preprocessing == "caffe",
    )


def _find(model: ModelSpec) -> Published:
    arguments: Mapping[str, Any] = model.arguments
    for entry in published():
        if entry.builder == model.builder and entry.depth in (None, arguments.get("depth")):
            return entry
    wanted = model.builder + (f" of depth {arguments['depth']}" if "depth" in arguments else "")
    raise SpecError(
        f"there are no published ImageNet weights for {wanted or model.file}",
        why="emb takes those of keras.applications",
        fix=f"choose one of {', '.join(entry.title for entry in published())}; or give a file: --weights FILE.keras",
    )


def _downloaded(entry: Published, progress: Callable[[str, int, int], None] | None) -> Path:
    from emb.data import fetch_file
    from emb.store import cache_directory

    return fetch_file(
        entry.url,
        checksum=f"md5:{entry.md5}",
        directory=cache_directory() / "weights",
        of=f"{entry.application}, trained on ImageNet",
        command="the same command",
        progress=progress,
    )


def _application(entry: Published, path: Path) -> keras.Model:
    import keras

    build = getattr(keras.applications, entry.application)
    source = build(weights=None, classes=IMAGENET_CLASSES)
    source.load_weights(path)
    return source


def _keras_model(path: Path, *, trust: bool) -> keras.Model:
    from emb.export.source import load_keras

    return load_keras(path, trust=trust)
