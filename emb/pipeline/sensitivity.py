"""How much accuracy each layer's channels are worth: the table of `emb inspect --sensitivity`. Trains nothing.

Looks at validation images alone: what is chosen by them must not have seen the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import ModelError, SpecError
from emb.pipeline.deliverable import located
from emb.pipeline.json_files import read_json
from emb.pipeline.pixels import PIXELS
from emb.pipeline.request import data_table
from emb.spec.dataset import DataRequest, Split
from emb.store import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from emb.prune.channels import Row

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_MOST_IMAGES, _BATCH = 1000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """images: which ones, in words.  accuracy: of the whole model, in [0, 1].  rows: see emb.prune.channels.Row.

    untouched: layers whose channels cannot be pruned, and why.
    """

    source: str
    images: str
    accuracy: float
    rows: tuple[Row, ...]
    untouched: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "images": self.images,
            "accuracy": self.accuracy,
            "rows": [
                {
                    "group": row.group,
                    "layers": list(row.layers),
                    "channels": row.channels,
                    "rate": row.rate,
                    "removed": row.removed,
                    "accuracy": row.accuracy,
                }
                for row in self.rows
            ],
            "untouched": dict(self.untouched),
        }


def sensitivity(
    source: str,
    *,
    rates: Sequence[float] = (0.25, 0.5, 0.75),
    data: str | None = None,
    data_dir: Path | None = None,
    trust_model: bool = False,
) -> Sensitivity:
    """The accuracy on validation images with a share of one group of tied channels masked, group by group.

    source: a .keras or .h5 file, or the directory that `emb train` left. The channels with the least sums of absolute
    weights go first. data: as for `emb build`; by default what the directory's manifest names. Of more than 1,000
    validation images 1,000 are drawn at random.
    Raises ModelError, SpecError or DataError.
    """
    from emb.export.source import load_keras
    from emb.prune import PRUNERS

    path = _model_file(source)
    recipe = _recipe(path)
    table = data_table(data)["data"] if data is not None else recipe.get("data")
    if table is None:
        raise SpecError(
            "--sensitivity needs validation images",
            why=f"beside {path} there is no {MANIFEST} that would name its data set",
            fix="add --data: a data set's name, a folder with one directory per class, or a .npz file",
        )
    channels = PRUNERS.get("channels")
    model = load_keras(path, trust=trust_model)
    scores = channels.scores(model, criterion="l1")
    split, images = _validation(model, table, recipe, data_dir=data_dir)
    accuracy = _accuracy_over(split, pixels=recipe.get("input", {}).get("pixels", "raw"))
    return Sensitivity(
        source=source,
        images=images,
        accuracy=accuracy(model),
        rows=channels.sensitivity(model, scores=scores, rates=rates, accuracy=accuracy),
        untouched=channels.untouched(model),
    )


def rates_of(text: str) -> tuple[float, ...]:
    """The numbers of "0.25,0.5". Raises SpecError for anything else."""
    try:
        rates = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise SpecError(
            f"--rates cannot be {text!r}",
            why="a rate is the share of a layer's channels that is left out",
            fix="give numbers between 0 and 1, e.g. --rates 0.25,0.5,0.75",
        )
    return rates


def _model_file(source: str) -> Path:
    path = located(Path(source))
    if path.is_dir():
        path = path / "model.keras"
    if path.suffix.lower() not in _KERAS_SUFFIXES or not path.exists():
        raise ModelError(
            f"{source} holds no Keras model",
            why="channels are masked in the model itself, and a build keeps the converted files alone",
            fix="give a .keras file, or the directory of `emb train`, which trains nothing twice that a build has",
        )
    return path


def _recipe(path: Path) -> Mapping[str, Any]:
    """The table of the recipe that the file was trained by; empty if it lies in no directory of emb's."""
    manifest = path.parent / MANIFEST
    if path.name != "model.keras" or not manifest.is_file():
        return {}
    recipe: Mapping[str, Any] = read_json(manifest).get("recipe", {})
    return recipe


def _validation(
    model: Any, table: Mapping[str, Any], recipe: Mapping[str, Any], *, data_dir: Path | None
) -> tuple[Split, str]:
    """The images that the training of `recipe` kept aside, and which ones they are."""
    from emb import data as data_sets

    height, width, channels = _image_shape(model)
    request = DataRequest(
        directories=data_sets.search_directories(data_dir),
        path=Path(table["path"]) if table["path"] else None,
        shape=(height, width, channels),
        validation_fraction=table.get("validation_fraction", 0.1),
        seed=recipe.get("train", {}).get("seed", 0),
        skip_bad=table.get("skip_bad", False),
    )
    dataset = data_sets.load(table["name"], request)
    classes = model.outputs[0].shape[-1]
    if classes != len(dataset.labels):
        raise ModelError(
            f"the model tells {classes} classes apart, and {table['name']} has {len(dataset.labels)}",
            fix="choose the data set that the model was made for: --data",
        )
    split = dataset.validation
    name = f"{len(split):,} validation images of {table['name']}"
    if len(split) > _MOST_IMAGES:
        chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:_MOST_IMAGES])
        split = Split(images=split.images[chosen], labels=split.labels[chosen])
        name = f"{_MOST_IMAGES:,} of the {name}"
    return split, name


def _image_shape(model: Any) -> tuple[int, int, int]:
    shape = tuple(model.inputs[0].shape[1:])
    if len(model.inputs) != 1 or len(shape) != 3 or None in shape:
        raise ModelError(
            f"{model.name} does not take one image of a known size",
            why=f"its input is of shape {shape}",
            fix="give an image classifier with a fixed input shape",
        )
    height, width, channels = shape
    return height, width, channels


def _accuracy_over(split: Split, *, pixels: str) -> Callable[[Any], float]:
    from emb.bench import top1

    border = PIXELS[pixels]

    def accuracy(model: Any) -> float:
        scores = []
        for begin in range(0, len(split), _BATCH):
            images = split.images[begin : begin + _BATCH].astype(np.float32) * np.float32(border.scale)
            given = model.predict_on_batch(images + np.float32(border.offset))
            scores.append(np.asarray(given[0] if isinstance(given, list | tuple) else given))
        return top1(np.concatenate(scores), split.labels).accuracy

    return accuracy
