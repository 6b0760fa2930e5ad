"""Writes scalars as a TensorBoard event file. Knows no training loop, and needs neither TensorFlow nor TensorBoard.

An event file is a sequence of records (length, its checksum, content, its checksum); each content is an Event in
protocol-buffer encoding. Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
tensorflow/core/framework/summary.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from emb.errors import StoreError

_CASTAGNOLI = 0x82F63B78  # CRC-32C's polynomial, its bits reversed
_MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """tag -> value at one step. wall_time_s: seconds since 1970."""

    step: int
    wall_time_s: float
    values: Mapping[str, float]


def append_scalars(file: Path, events: Iterable[Scalars]) -> None:
    """Append to an event file, which is begun if it is not there. Raises StoreError if it cannot be written.

    file: its name must hold "tfevents", by which TensorBoard finds it.
    """
    content = b"".join(_record(_event(event)) for event in events)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            if stream.tell() == 0:
                stream.write(_record(_double(1, 0.0) + _text(3, "brain.Event:2")))
            stream.write(content)
    except OSError as error:
        raise StoreError(
            f"cannot write TensorBoard's events to {file.parent}",
            why=(error.strerror or str(error)).lower(),
            fix="choose another place with --tensorboard",
        ) from error


def _event(event: Scalars) -> bytes:
    summary = b"".join(
        _block(1, _text(1, tag) + struct.pack("<Bf", 2 << 3 | 5, value)) for tag, value in event.values.items()
    )
    return _double(1, event.wall_time_s) + bytes([2 << 3]) + _varint(event.step) + _block(5, summary)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _double(field: int, value: float) -> bytes:
    return struct.pack("<Bd", field << 3 | 1, value)


def _text(field: int, value: str) -> bytes:
    return _block(field, value.encode())


def _block(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, least significant first. value: not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _checksum(content: bytes) -> bytes:
    """The record format's masked CRC-32C."""
    crc = 0xFFFFFFFF
    table = _table()
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


@cache
def _table() -> tuple[int, ...]:
    """CRC-32C of every byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
        table.append(byte)
    return tuple(table)
