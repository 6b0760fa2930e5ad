"""The framing of the pipes between emb and a worker: one line of JSON, then the bytes of at most one array.

The header's "array" holds its dtype and shape; the bytes are little-endian in C order. Knows no request.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from emb.runtimes._interface import Array

Header = dict[str, Any]


def write_frame(stream: IO[bytes], header: Header, array: Array | None = None) -> None:
    """Raises OSError (BrokenPipeError) if the other side is gone."""
    if array is None:
        stream.write(json.dumps(header).encode() + b"\n")
        stream.flush()
        return
    stored = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    described = {**header, "array": {"dtype": array.dtype.name, "shape": array.shape}}
    stream.write(json.dumps(described).encode() + b"\n")
    stream.write(stored.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[Header, Array | None]:
    """The next header and its array, if any. Raises EOFError if the other side is gone, even in mid-frame."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header: Header = json.loads(line)
    described = header.pop("array", None)
    if described is None:
        return header, None
    dtype = np.dtype(described["dtype"])
    content = np.empty(described["shape"], dtype=dtype.newbyteorder("<"))
    view = content.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]  # both ends are buffered
        if not count:
            raise EOFError
        filled += count
    return header, content.astype(dtype, copy=False)
