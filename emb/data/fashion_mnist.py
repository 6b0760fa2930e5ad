"""Pictures of clothes: 60,000 train and 10,000 test images, 28x28 grey (Xiao, Rasul, Vollgraf 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.data._fetch import Download, RemoteFile
from emb.data._locate import Layout, Located, find_layout
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
_LAYOUT = Layout(
    folder="fashion-mnist",
    files=(
        ("train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"),
        ("train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"),
        ("t10k-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte"),
    ),
)
# The authors' repository and their bucket; the bucket's web address knows no TLS, the checksum stands in for it.
_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _remote(name: str, total_bytes: int, md5: str) -> RemoteFile:
    urls = tuple(mirror + name for mirror in _MIRRORS)
    return RemoteFile(name=name, urls=urls, total_bytes=total_bytes, checksum=f"md5:{md5}")


DOWNLOAD = Download(
    folder=_LAYOUT.folder,
    files=(
        _remote("train-images-idx3-ubyte.gz", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _remote("train-labels-idx1-ubyte.gz", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        _remote("t10k-images-idx3-ubyte.gz", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        _remote("t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)


def find(request: DataRequest) -> Located:
    """`fashion-mnist/train-images-idx3-ubyte.gz` and its three companions, each with or without .gz."""
    fix = (
        "run `emb data fetch fashion-mnist`, or put the four idx files of Fashion-MNIST into DIR/fashion-mnist "
        "and give --data-dir DIR"
    )
    return find_layout("fashion-mnist", request, layouts=(_LAYOUT,), fix=fix)


def read(located: Located, request: DataRequest) -> Parts:
    """Raises DataError for a truncated or corrupt file, a wrong magic number, size or label."""
    from emb.data._idx import read_parts

    return read_parts(located, request, labels=LABELS)
