"""Your own arrays: an .npz file with x_train, y_train, x_test, y_test and, if you like, labels.

x: (n, height, width) or (n, height, width, 1 or 3), raw pixels 0 to 255: uint8, or whole numbers in another type.
y: (n,) or (n, 1) integers from 0.  labels: names of the classes, one each; "0", "1", ... without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._locate import Located
from emb.errors import DataError
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts


def find(request: DataRequest) -> Located:
    """The file `request.path`."""
    if request.path is None:
        problem = DataError(
            "the data set arrays needs a file",
            fix="name it: --data FILE.npz, with x_train, y_train, x_test and y_test in it",
        )
        return Located(name="arrays", problem=problem)
    path = request.path.expanduser().absolute()
    try:
        is_file = path.is_file()
    except OSError as error:
        from emb.data._files import unreadable

        return Located(name="arrays", looked=(path,), problem=unreadable(path, error))
    if not is_file:
        why = "it is a directory" if path.is_dir() else "there is no such file"
        fix = "name an .npz file; for a directory of images choose the data set folder"
        return Located(name="arrays", looked=(path,), problem=DataError(f"{path} is no file", why=why, fix=fix))
    return Located(name="arrays", directory=path.parent, files=(path,), looked=(path,))


def read(located: Located, request: DataRequest) -> Parts:
    """Raises DataError for missing arrays, wrong shapes and types, NaN, pixels or labels out of range."""
    from emb.data._arrays import read_parts

    return read_parts(located.files[0], shape=request.shape)
