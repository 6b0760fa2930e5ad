"""Handwritten digits: 60,000 train and 10,000 test images, 28x28 grey (LeCun, Cortes, Burges 1998)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._locate import Located, find_layout
from emb.data._mnist_files import download, layout
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts

LABELS = tuple("0123456789")
DOWNLOAD = download(
    "mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    published=(
        (9_912_422, "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
)


def find(request: DataRequest) -> Located:
    """`mnist/train-images-idx3-ubyte.gz` and its three companions, each with or without .gz."""
    fix = "run `emb data fetch mnist`, or put the four idx files of MNIST into DIR/mnist and give --data-dir DIR"
    return find_layout("mnist", request, layouts=(layout("mnist"),), fix=fix)


def read(located: Located, request: DataRequest) -> Parts:
    """Raises DataError for a truncated or corrupt file, a wrong magic number, size or label."""
    from emb.data._idx import read_parts

    return read_parts(located, request, labels=LABELS)
