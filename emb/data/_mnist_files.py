"""The four files that MNIST and its descendants consist of: their names, and how they are downloaded. Reads none."""

from __future__ import annotations

from collections.abc import Sequence

from emb.data._fetch import Download, RemoteFile
from emb.data._locate import Layout

# In the order that emb.data._idx.read_parts expects.
NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def layout(folder: str) -> Layout:
    """The four files in `folder`, each gzipped or plain."""
    return Layout(folder=folder, files=tuple((name, name.removesuffix(".gz")) for name in NAMES))


def download(folder: str, *, mirrors: Sequence[str], published: Sequence[tuple[int, str]]) -> Download:
    """mirrors: URLs to which a name is appended.  published: (bytes, "algorithm:checksum") of each of NAMES."""
    files = tuple(
        RemoteFile(
            name=name,
            urls=tuple(mirror + name for mirror in mirrors),
            total_bytes=total_bytes,
            checksum=checksum,
        )
        for name, (total_bytes, checksum) in zip(NAMES, published, strict=True)
    )
    return Download(folder=folder, files=files)
