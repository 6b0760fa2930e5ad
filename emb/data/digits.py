"""Handwritten digits that come with scikit-learn: 1,797 images, 8x8 grey, scaled to 28x28. Needs no download.

The pixels 0 to 16 are scaled to 0 to 255 and enlarged by Pillow's BICUBIC filter, which keeps the strokes smooth
where BILINEAR shows the grid of the 8x8 pixels. A fifth of each class is the test split, always the same one.
Source: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from emb.data._locate import Located
from emb.errors import DataError
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts

LABELS = tuple("0123456789")
_SHAPE = (28, 28, 1)
_TEST_FRACTION = 0.2


def find(request: DataRequest) -> Located:
    """`digits.csv.gz` inside the installed scikit-learn, which is not imported: that costs a second."""
    package = find_spec("sklearn")
    fix = "install scikit-learn again: pip install --force-reinstall scikit-learn"
    if package is None or package.origin is None:
        return Located(name="digits", problem=DataError("scikit-learn is not installed", fix=fix))
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        problem = DataError("the data set digits was not found", why=f"looked for {file}", fix=fix)
        return Located(name="digits", looked=(file.parent,), problem=problem)
    return Located(name="digits", directory=file.parent, files=(file,), looked=(file.parent,))


def read(located: Located, request: DataRequest) -> Parts:
    """(n, 28, 28, 1), or the shape that was asked for. Raises DataError if scikit-learn's file is damaged."""
    from emb.data._digits import read_parts

    return read_parts(located, labels=LABELS, shape=request.shape or _SHAPE, test_fraction=_TEST_FRACTION)
