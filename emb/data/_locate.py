"""Where data sets lie: directories that are searched, files that must be there. Opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emb.errors import DataError
from emb.spec.dataset import DataRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What a search for a data set came to.

    directory: what the files' relative names start from; None if nothing usable was found.
    files: absolute paths of all source files, in the order that the data set's `read` expects; of a folder, the Tree.
    looked: every place that was looked at.  problem: why the data set cannot be used, ready to be raised.
    """

    name: str
    directory: Path | None = None
    files: Sequence[Path] = ()
    looked: tuple[Path, ...] = ()
    problem: DataError | None = None

    @property
    def found(self) -> bool:
        return self.problem is None

    @property
    def total_bytes(self) -> int:
        """Size of all source files."""
        return sum(file.stat().st_size for file in self.files)

    def require(self) -> Located:
        """This value if the data set was found. Raises its problem otherwise."""
        if self.problem is not None:
            raise self.problem
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which a data set lies in a directory.

    folder: relative to a search directory.  files: for each file the names it may have, the first is preferred.
    """

    folder: str
    files: tuple[tuple[str, ...], ...]


def find_layout(name: str, request: DataRequest, *, layouts: Sequence[Layout], fix: str) -> Located:
    """The first complete layout in the first directory that has one.

    fix: what the user can do if there is none; directories are named by the error itself.
    """
    looked: list[Path] = []
    incomplete: DataError | None = None
    for directory in request.directories:
        for layout in layouts:
            folder = directory / layout.folder
            looked.append(folder)
            try:
                present = [_first_file(folder, names) for names in layout.files]
            except OSError as error:
                incomplete = incomplete or _unreadable(folder, error)
                continue
            files = tuple(path for path in present if path is not None)
            if len(files) == len(layout.files):
                return Located(name=name, directory=folder, files=files, looked=tuple(looked))
            if files and incomplete is None:
                missing = [names[0] for names, path in zip(layout.files, present, strict=True) if path is None]
                incomplete = DataError(
                    f"the data set {name} is incomplete in {folder}",
                    why=f"missing: {', '.join(missing)}",
                    fix=fix,
                )
    problem = incomplete or _absent(name, request, layouts=layouts, fix=fix)
    return Located(name=name, looked=tuple(looked), problem=problem)


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be searched",
        why=(error.strerror or str(error)).lower(),
        fix="make the directory readable for you, or leave it out of the search",
    )


def _absent(name: str, request: DataRequest, *, layouts: Sequence[Layout], fix: str) -> DataError:
    wanted = " or ".join(dict.fromkeys(f"{layout.folder}/{layout.files[0][0]}" for layout in layouts))
    places = ", ".join(str(directory) for directory in request.directories) or "no directory at all"
    return DataError(f"the data set {name} was not found", why=f"looked for {wanted} in {places}", fix=fix)
