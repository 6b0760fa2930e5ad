"""From a tree of image files to splits of pixels. Knows the tree's shape only as far as its classes and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emb.data._parts import Parts
from emb.data._pixels import probe_all, read_all
from emb.data._splits import hashed
from emb.data._tree import Tree
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Split

# (image, number of its class)
_Labelled = list[tuple[Path, int]]


def read_parts(tree: Tree, request: DataRequest, *, test_fraction: float) -> Parts:
    """Train, validation and test of the tree; validation and, where the tree has none, test by hash of the path."""
    shape = request.shape or _common_shape(tree)
    train: _Labelled = []
    validation: _Labelled = []
    test: _Labelled = []
    for label, name in enumerate(tree.classes):
        rest = tree.splits["train" if "train" in tree.splits else ""][name]
        if "test" in tree.splits:
            test += [(path, label) for path in tree.splits["test"].get(name, ())]
        else:
            rest = _divide(rest, test, label, tree.root, fraction=test_fraction, salt="test")
        if "validation" in tree.splits:
            validation += [(path, label) for path in tree.splits["validation"].get(name, ())]
        else:
            salt = f"validation {request.seed}"
            rest = _divide(rest, validation, label, tree.root, fraction=request.validation_fraction, salt=salt)
        train += [(path, label) for path in rest]
    return Parts(
        train=_decode(train, shape),
        validation=_decode(validation, shape),
        test=_decode(test, shape),
        labels=tree.classes,
    )


def _divide(
    images: tuple[Path, ...], taken: _Labelled, label: int, root: Path, *, fraction: float, salt: str
) -> tuple[Path, ...]:
    """Move a share of one class into `taken`; returns the others."""
    mask = hashed([path.relative_to(root).as_posix() for path in images], fraction=fraction, salt=salt)
    taken += [(path, label) for path, away in zip(images, mask, strict=True) if away]
    return tuple(path for path, away in zip(images, mask, strict=True) if not away)


def _common_shape(tree: Tree) -> tuple[int, int, int]:
    """The size that all images share; RGB as soon as one of them has colours."""
    shapes = dict(zip(tree.files, probe_all(tree.files), strict=True))
    first, (height, width, _) = next(iter(shapes.items()))
    for path, (other_height, other_width, _) in shapes.items():
        if (other_height, other_width) != (height, width):
            raise DataError(
                "the images have different sizes, and no input shape is given",
                why=f"{first} is {height}x{width}, {path} is {other_height}x{other_width} (height x width)",
                fix="give the shape, e.g. --set 'input.shape=[96, 96, 3]'",
            )
    return height, width, max(channels for _, _, channels in shapes.values())


def _decode(images: _Labelled, shape: tuple[int, int, int]) -> Split:
    pixels = read_all([path for path, _ in images], shape=shape)
    return Split(images=pixels, labels=np.array([label for _, label in images], dtype=np.int64))
