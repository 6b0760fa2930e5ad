"""The directories and file names of an image folder: splits, classes, images. Opens no image.

A folder may hold millions of images, so that a name is kept as the bytes it has on disk, without its directory, in one
buffer for all (about 30 bytes a name in ImageNet); a Path is made when it is asked for. Imports no numpy.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from emb.data._files import some, unreadable
from emb.errors import DataError

_IMAGES = frozenset({".jpg", ".jpeg", ".png"})
# What file managers leave behind; names with a dot in front are left out anyway.
_IGNORED = frozenset({"thumbs.db", "desktop.ini"})
_VALIDATION = ("val", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The images of one class in one split: those of the tree from `start` to `stop` (exclusive).

    split: "" (there are no split directories), "train", "test" or "validation".
    folder: relative to the tree's root, with "/".
    """

    split: str
    label: str
    folder: str
    start: int
    stop: int


class Tree(Sequence[Path]):
    """All images below `root`, in the order of their paths. classes: sorted names of the train classes."""

    def __init__(self, root: Path, folders: Mapping[str, str]) -> None:
        """Scan. folders: split -> its directory relative to root, "" for root itself.

        Raises DataError if a split is not one directory of images per class, or cannot be read.
        """
        self.root = root
        self._names = bytearray()
        self._ends = array("Q")
        groups: list[Group] = []
        for split, folder in sorted(folders.items(), key=lambda item: item[1]):
            for label in _class_names(root / folder):
                start, inside = len(self._ends), f"{folder}/{label}" if folder else label
                for name in _images(root / inside):
                    self._names += os.fsencode(name)
                    self._ends.append(len(self._names))
                groups.append(Group(split=split, label=label, folder=inside, start=start, stop=len(self._ends)))
        self.groups = tuple(groups)
        self._stops = [group.stop for group in groups]
        first = "train" if "train" in folders else ""
        self.classes = tuple(group.label for group in groups if group.split == first)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, key: int) -> Path: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Path]: ...
    def __getitem__(self, key: int | slice) -> Path | Sequence[Path]:
        if isinstance(key, slice):
            return [self[index] for index in range(*key.indices(len(self)))]
        index = key + len(self) if key < 0 else key
        if not 0 <= index < len(self):
            raise IndexError(key)
        return self.root / self.relative(index)

    def relative(self, index: int) -> str:
        """Path of one image below the root, with "/". index: in [0, n)."""
        group = self.groups[bisect_right(self._stops, index)]
        name = self._names[self._ends[index - 1] if index else 0 : self._ends[index]]
        return f"{group.folder}/{os.fsdecode(bytes(name))}"


def scan(root: Path) -> Tree:
    """The tree below `root`. Raises DataError if it is not one directory of images per class."""
    names = set(_entries(root)[0])
    if "train" in names and names <= {"train", "test", *_VALIDATION}:
        if "test" not in names:
            raise DataError(
                f"{root} has train and no test directory",
                why="without a test split nothing can be measured",
                fix="add test (validation may be left out), or put the class directories directly into one folder",
            )
        if names.issuperset(_VALIDATION):
            raise DataError(
                f"{root} has both a val and a validation directory",
                why="they are two names of one split",
                fix="put the images of one into the other",
            )
        folders = {"validation" if name in _VALIDATION else name: name for name in names}
    elif {"train", "test"} <= names:
        others = sorted(names - {"train", "test", *_VALIDATION})
        raise DataError(
            f"{root} mixes splits and classes",
            why=f"beside train and test there are {some(others)}",
            fix="keep only train, test and validation there, or only class directories",
        )
    else:
        folders = {"": ""}
    tree = Tree(root, folders)
    _check_classes(tree)
    return tree


def _check_classes(tree: Tree) -> None:
    if len(tree.classes) < 2:
        raise DataError(
            f"{tree.root} has one class only: {tree.classes[0]!r}",
            why="a classifier needs at least two classes to choose from",
            fix="add a directory with images of a second class",
        )
    for split in dict.fromkeys(group.split for group in tree.groups):
        unknown = [g.label for g in tree.groups if g.split == split and g.label not in tree.classes]
        if unknown:
            raise DataError(
                f"the {split} split of {tree.root} has classes that train has not: {some(unknown)}",
                why="a class that was never trained cannot be recognised",
                fix=f"add them to train, or remove them from {split}",
            )


def _class_names(folder: Path) -> list[str]:
    directories, files = _entries(folder)
    stray = [name for name in files if _is_image(name)]
    if not directories:
        raise DataError(
            f"{folder} has no class directories",
            why=f"there are {len(stray):,} images directly in it" if stray else "",
            fix="make one subdirectory per class, named like the class, and put its images there",
        )
    if stray:
        raise DataError(
            f"{len(stray):,} images in {folder} belong to no class: {some(stray)}",
            fix="move each into the directory of its class",
        )
    return directories


def _images(folder: Path) -> list[str]:
    """Paths of the images below `folder`, relative to it, in the order of pathlib's paths."""
    images: list[str] = []
    others: list[str] = []
    for name in _below(folder, ""):
        (images if _is_image(name) else others).append(name)
    if others:
        raise DataError(
            f"{len(others):,} files in {folder} are no JPEG or PNG: "
            f"{some(sorted(name.rpartition('/')[2] for name in others))}",
            why="images end in .jpg, .jpeg or .png",
            fix="convert or remove them",
        )
    if not images:
        raise DataError(f"the class directory {folder} is empty", fix="put images of the class into it, or remove it")
    if any("/" in name for name in images):
        images.sort(key=lambda name: name.split("/"))
    else:
        images.sort()
    return images


def _below(root: Path, inside: str) -> Iterator[str]:
    """Files at any depth, without those that file managers leave behind. Links to directories are not followed."""
    folder = root / inside
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    if entry.name.lower() not in _IGNORED:
                        yield inside + entry.name
                elif not entry.is_symlink():
                    yield from _below(root, f"{inside}{entry.name}/")
    except OSError as error:
        raise unreadable(folder, error) from error


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _IMAGES  # noqa: PTH122  a Path for each of a million names is slow


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of directories and files, without hidden ones."""
    directories: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (directories if entry.is_dir() else files).append(entry.name)
    except NotADirectoryError as error:
        raise DataError(
            f"{folder} is no directory", fix="name a directory with one subdirectory of images per class"
        ) from error
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(directories), sorted(files)
