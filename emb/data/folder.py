"""Your own images: a directory with one subdirectory per class, JPEG or PNG of any size.

Each image is turned upright by its EXIF orientation, cropped around its centre to the aspect ratio of the input
shape, and scaled to it by Pillow's BILINEAR filter with antialiasing. Classes are the subdirectories' names in
alphabetical order. If there are `train` and `test` (and `val` or `validation`) directories, they are the splits,
each with one subdirectory per class. Otherwise a fifth of each class is the test split, decided by a hash of each
image's path relative to the directory, so that an image stays in its split when others come or go.
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
    return Located(name="folder", directory=root, files=scan(root).files, looked=(root,))


def read(located: Located, request: DataRequest) -> Parts:
    """Without a shape, all images must have one size. Raises DataError, naming the image that cannot be decoded."""
    from emb.data._folder import read_parts
    from emb.data._tree import scan

    directory = located.require().directory
    if directory is None:
        raise ValueError("a data set that was found has a directory")
    return read_parts(scan(directory), request, test_fraction=TEST_FRACTION)
