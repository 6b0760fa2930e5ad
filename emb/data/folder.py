"""Your own images: a directory with one subdirectory per class, JPEG or PNG of any size.

Each image is turned upright by its EXIF orientation, cropped around its centre to the aspect ratio of the input
shape, and scaled to it by Pillow's BILINEAR filter with antialiasing. Classes are the subdirectories' names in
alphabetical order. If there are `train` and `test` (and `val` or `validation`) directories, they are the splits,
each with one subdirectory per class. Otherwise a fifth of each class is the test split, decided by a hash of each
image's path relative to the directory, so that an image stays in its split when others come or go.

Images that would take more than 1 GiB once decoded (emb.data._folder.IN_MEMORY_BYTES) are read from their files, batch
by batch, whenever they are needed; the pixels are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._locate import Located
from emb.errors import DataError
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts

TEST_FRACTION = 0.2


def find(request: DataRequest) -> Located:
    """All images below `request.path`. Raises DataError for whatever is wrong with the directories."""
    from emb.data._tree import scan

    if request.path is None:
        problem = DataError(
            "the data set folder needs a directory",
            fix="name it: --data DIR, with one subdirectory of images per class",
        )
        return Located(name="folder", problem=problem)
    root = request.path.expanduser().absolute()
    if not root.exists():
        raise DataError(
            f"there is no directory {root}",
            why="it is where the images are looked for, one subdirectory for each class",
            fix="name the place where yours are: --data DIR",
        )
    return Located(name="folder", directory=root, files=scan(root), looked=(root,))


def read(located: Located, request: DataRequest) -> Parts:
    """Without a shape, all images must have one size.

    Raises DataError, naming the image that cannot be decoded; with request.skip_bad it is left out, and Parts.notes
    says so.
    """
    from emb.data._folder import read_parts
    from emb.data._tree import Tree

    tree = located.require().files
    if not isinstance(tree, Tree):
        raise TypeError(f"folder.read takes what folder.find found, not {type(tree).__name__}")
    return read_parts(tree, request, test_fraction=TEST_FRACTION)
