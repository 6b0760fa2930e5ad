"""The directories and file names of an image folder: splits, classes, images. Opens no image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from emb.data._files import unreadable
from emb.errors import DataError

_IMAGES = frozenset({".jpg", ".jpeg", ".png"})
# What file managers leave behind; names with a dot in front are left out anyway.
_IGNORED = frozenset({"thumbs.db", "desktop.ini"})
_VALIDATION = ("val", "validation")
_FEW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """splits: "" or "train", "test" and perhaps "validation" -> class -> its images, sorted by path.

    classes: sorted names of the train classes.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, tuple[Path, ...]]]

    @property
    def files(self) -> tuple[Path, ...]:
        """All images, sorted by path."""
        return tuple(sorted(image for split in self.splits.values() for images in split.values() for image in images))


def scan(root: Path) -> Tree:
    """The tree below `root`. Raises DataError if it is not one directory of images per class."""
    names = {directory.name for directory in _entries(root)[0]}
    if "train" in names and names <= {"train", "test", *_VALIDATION}:
        if "test" not in names:
            raise DataError(
                f"{root} has train and no test directory",
                why="without a test split nothing can be measured",
                fix="add test (validation may be left out), or put the class directories directly into one folder",
            )
        splits = {"train": _classes(root / "train"), "test": _classes(root / "test")}
        for name in names.intersection(_VALIDATION):
            splits["validation"] = _classes(root / name)
    elif {"train", "test"} <= names:
        others = sorted(names - {"train", "test", *_VALIDATION})
        raise DataError(
            f"{root} mixes splits and classes",
            why=f"beside train and test there are {_some(others)}",
            fix="keep only train, test and validation there, or only class directories",
        )
    else:
        splits = {"": _classes(root)}
    classes = tuple(splits.get("train", splits.get("", {})))
    _check_classes(root, classes, splits)
    return Tree(root=root, classes=classes, splits=splits)


def _check_classes(root: Path, classes: tuple[str, ...], splits: Mapping[str, Mapping[str, tuple[Path, ...]]]) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{root} has one class only: {classes[0]!r}",
            why="a classifier needs at least two classes to choose from",
            fix="add a directory with images of a second class",
        )
    for split, found in splits.items():
        unknown = sorted(set(found) - set(classes))
        if unknown:
            raise DataError(
                f"the {split} split of {root} has classes that train has not: {_some(unknown)}",
                why="a class that was never trained cannot be recognised",
                fix=f"add them to train, or remove them from {split}",
            )


def _classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    directories, files = _entries(folder)
    stray = [file.name for file in files if file.suffix.lower() in _IMAGES]
    if not directories:
        raise DataError(
            f"{folder} has no class directories",
            why=f"there are {len(stray):,} images directly in it" if stray else "",
            fix="make one subdirectory per class, named like the class, and put its images there",
        )
    if stray:
        raise DataError(
            f"{len(stray):,} images in {folder} belong to no class: {_some(stray)}",
            fix="move each into the directory of its class",
        )
    return {directory.name: _images(directory) for directory in directories}


def _images(folder: Path) -> tuple[Path, ...]:
    def refuse(error: OSError) -> NoReturn:
        raise unreadable(Path(error.filename or folder), error) from error

    images: list[Path] = []
    others: list[Path] = []
    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.lower() in _IGNORED:
                continue
            (images if Path(name).suffix.lower() in _IMAGES else others).append(Path(parent, name))
    if others:
        raise DataError(
            f"{len(others):,} files in {folder} are no JPEG or PNG: {_some(sorted(path.name for path in others))}",
            why="images end in .jpg, .jpeg or .png",
            fix="convert or remove them",
        )
    if not images:
        raise DataError(f"the class directory {folder} is empty", fix="put images of the class into it, or remove it")
    return tuple(sorted(images))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sorted directories and files, without hidden ones."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        directories = [path for path in found if path.is_dir()]
    except NotADirectoryError as error:
        raise DataError(
            f"{folder} is no directory", fix="name a directory with one subdirectory of images per class"
        ) from error
    except OSError as error:
        raise unreadable(folder, error) from error
    return directories, [path for path in found if path not in directories]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_FEW])
    return f"{shown} and {len(names) - _FEW:,} more" if len(names) > _FEW else shown
