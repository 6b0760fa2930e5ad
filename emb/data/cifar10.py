"""Small photographs of 10 classes: 50,000 train and 10,000 test images, 32x32 RGB (Krizhevsky 2009)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._fetch import Download, RemoteFile
from emb.data._locate import Layout, Located, find_layout
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_PYTHON = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_BINARY = tuple(f"{name}.bin" for name in _PYTHON)
# The archives unpack into folders of their own; both with and without them is common.
_LAYOUTS = tuple(
    Layout(folder=folder, files=tuple((name,) for name in names))
    for folder, names in (
        ("cifar10", _BINARY),
        ("cifar10/cifar-10-batches-bin", _BINARY),
        ("cifar10", _PYTHON),
        ("cifar10/cifar-10-batches-py", _PYTHON),
    )
)
DOWNLOAD = Download(
    folder="cifar10",
    files=(
        RemoteFile(
            name="cifar-10-binary.tar.gz",
            urls=(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
            ),
            total_bytes=170_052_171,
            checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpack=_BINARY,
        ),
    ),
)


def find(request: DataRequest) -> Located:
    """`cifar10/data_batch_1.bin` ... `test_batch.bin`, or the python version without .bin."""
    fix = (
        "run `emb data fetch cifar10`, or put data_batch_1.bin ... data_batch_5.bin and test_batch.bin into "
        "DIR/cifar10 and give --data-dir DIR"
    )
    return find_layout("cifar10", request, layouts=_LAYOUTS, fix=fix)


def read(located: Located, request: DataRequest) -> Parts:
    """Raises DataError for a file of the wrong length, a wrong label, or a pickle that holds anything else."""
    from emb.data._cifar import read_parts

    return read_parts(located, request, labels=LABELS)
