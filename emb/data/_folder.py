"""From a tree of image files to splits of pixels. Knows the tree's shape only as far as its classes and splits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.data._facts import facts_of
from emb.data._files import some
from emb.data._parts import Parts
from emb.data._pixels import FIX, fault, probe, quiet
from emb.data._splits import hashed
from emb.data._streamed import StreamedImages
from emb.data._tree import Group, Tree
from emb.errors import DataError
from emb.spec.dataset import DataRequest, Split

# Up to here all splits together are decoded once and stay in memory; above it, an image is decoded for each use.
IN_MEMORY_BYTES = 2**30
_FIX = f"{FIX}, or build with --skip-bad, which leaves it out"


def read_parts(tree: Tree, request: DataRequest, *, test_fraction: float) -> Parts:
    """Train, validation and test of the tree; validation and, where the tree has none, test by hash of the path."""
    kept = np.ones(len(tree), dtype=np.bool_)
    notes: tuple[str, ...] = ()
    if request.skip_bad:
        kept, notes = _without_bad(tree)
    shape = request.shape or _common_shape(tree, kept)
    streamed = np.count_nonzero(kept) * int(np.prod(shape)) > IN_MEMORY_BYTES
    if streamed and not request.skip_bad:
        for _ in _headers(tree, np.flatnonzero(kept)):
            pass  # a bad header is told before the training; bad pixels, when the image is first read
    splits = {}
    for name, chosen in _divided(tree, kept, request, test_fraction=test_fraction).items():
        indices, labels = chosen
        images = StreamedImages(tree, indices, shape=shape, fix=_FIX)
        splits[name] = Split(images=images if streamed else images[:], labels=labels)
    return Parts(**splits, labels=tree.classes, notes=notes)


def _divided(
    tree: Tree, kept: NDArray[np.bool_], request: DataRequest, *, test_fraction: float
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split -> (indices into the tree, numbers of their classes), both (n,) int64, class by class."""
    own = {group.split for group in tree.groups}
    numbers = {label: number for number, label in enumerate(tree.classes)}
    parts: dict[str, list[tuple[NDArray[np.int64], int]]] = {"train": [], "validation": [], "test": []}
    for group in tree.groups:
        number = numbers[group.label]
        rest = np.flatnonzero(kept[group.start : group.stop]) + group.start
        if group.split not in ("", "train"):
            parts[group.split].append((rest, number))
            continue
        if "test" not in own:
            taken = _share(tree, rest, fraction=test_fraction, salt="test")
            parts["test"].append((rest[taken], number))
            rest = rest[~taken]
        if "validation" not in own:
            taken = _share(tree, rest, fraction=request.validation_fraction, salt=f"validation {request.seed}")
            parts["validation"].append((rest[taken], number))
            rest = rest[~taken]
        parts["train"].append((rest, number))
    return {
        name: (
            np.concatenate([indices for indices, _ in classes]),
            np.repeat(
                np.array([number for _, number in classes], dtype=np.int64), [len(indices) for indices, _ in classes]
            ),
        )
        for name, classes in parts.items()
    }


def _share(tree: Tree, indices: NDArray[np.int64], *, fraction: float, salt: str) -> NDArray[np.bool_]:
    return hashed((tree.relative(int(index)) for index in indices), fraction=fraction, salt=salt)


def _without_bad(tree: Tree) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which images can be decoded, (n,) bool, and what to say of the others. Each is tried once in its lifetime.

    Raises DataError if a class of a split loses all of its images.
    """
    kept = np.ones(len(tree), dtype=np.bool_)
    reasons: dict[int, str] = {}
    with quiet():
        for index, fact in enumerate(facts_of(tree, f"decoded by Pillow {version('pillow')}", _reason)):
            if fact:
                kept[index] = False
                reasons[index] = fact.decode(errors="replace")
    for group in tree.groups:
        if not kept[group.start : group.stop].any():
            raise _lost(tree, group, reasons[group.start])
    if not reasons:
        return kept, ()
    # A name may hold bytes that are no UTF-8, which no report could be written with.
    names = some([os.fsencode(tree.relative(index)).decode(errors="replace") for index in reasons])
    return kept, (f"{len(reasons):,} of {len(tree):,} images cannot be decoded, left out by --skip-bad: {names}",)


def _reason(path: Path) -> bytes:
    """Why an image cannot be decoded; empty if it can."""
    return fault(path).encode(errors="replace")


def _lost(tree: Tree, group: Group, reason: str) -> DataError:
    count = group.stop - group.start
    return DataError(
        f"no image of the class {group.label!r} in {tree.root / group.folder} can be decoded",
        why=f"--skip-bad would leave out all {count:,}; the first: {reason}",
        fix="give intact images of it, or remove its directory",
    )


def _headers(tree: Tree, indices: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(height, width, channels) of these images. Raises DataError, naming the file, for a bad header."""

    def read(path: Path) -> bytes:
        return " ".join(map(str, probe(path, fix=_FIX))).encode()

    with quiet():
        for fact in facts_of((tree[int(index)] for index in indices), f"header by Pillow {version('pillow')}", read):
            height, width, channels = map(int, fact.split())
            yield height, width, channels


def _common_shape(tree: Tree, kept: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The size that all images share; RGB as soon as one of them has colours."""
    indices = np.flatnonzero(kept)
    first: tuple[int, int] | None = None
    most = 1
    for index, (height, width, channels) in zip(indices, _headers(tree, indices), strict=True):
        first = first or (height, width)
        most = max(most, channels)
        if (height, width) != first:
            raise DataError(
                "the images have different sizes, and no input shape is given",
                why=f"{tree[int(indices[0])]} is {first[0]}x{first[1]}, {tree[int(index)]} is {height}x{width} "
                "(height x width)",
                fix="give the shape, e.g. --set 'input.shape=[96, 96, 3]'",
            )
    if first is None:
        raise ValueError("a tree has images")
    return *first, most
