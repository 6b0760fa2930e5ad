"""Pictures of clothes: 60,000 train and 10,000 test images, 28x28 grey (Xiao, Rasul, Vollgraf 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._locate import Located, find_layout
from emb.data._mnist_files import download, layout
from emb.spec.dataset import DataRequest

if TYPE_CHECKING:
    from emb.data._parts import Parts

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DOWNLOAD = download(
    "fashion-mnist",
    # The authors' repository and their bucket, whose web address has no TLS; the checksum stands in for it.
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    published=(
        (26_421_880, "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (29_515, "md5:25c81989df183df01b3e8a0aad5dffbe"),
        (4_422_102, "md5:bef4ecab320f06d8554ea6380940ec79"),
        (5_148, "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)


def find(request: DataRequest) -> Located:
    """`fashion-mnist/train-images-idx3-ubyte.gz` and its three companions, each with or without .gz."""
    fix = (
        "run `emb data fetch fashion-mnist`, or put the four idx files of Fashion-MNIST into DIR/fashion-mnist "
        "and give --data-dir DIR"
    )
    return find_layout("fashion-mnist", request, layouts=(layout("fashion-mnist"),), fix=fix)


def read(located: Located, request: DataRequest) -> Parts:
    """Raises DataError for a truncated or corrupt file, a wrong magic number, size or label."""
    from emb.data._idx import read_parts

    return read_parts(located, request, labels=LABELS)
