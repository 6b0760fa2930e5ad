"""Writes scalars as a TensorBoard event file. Knows no training loop, and needs no TensorFlow.

tensorboard's own EventFileWriter opens its files through TensorFlow where that is installed, and cannot append; its
record writer takes any file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emb.errors import StoreError


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
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            records = RecordWriter(stream)
            if stream.tell() == 0:
                records.write(Event(file_version="brain.Event:2").SerializeToString())
            for event in events:
                values = [Summary.Value(tag=tag, simple_value=value) for tag, value in event.values.items()]
                message = Event(wall_time=event.wall_time_s, step=event.step, summary=Summary(value=values))
                records.write(message.SerializeToString())
    except OSError as error:
        raise StoreError(
            f"cannot write TensorBoard's events to {file.parent}",
            why=(error.strerror or str(error)).lower(),
            fix="choose another place with --tensorboard",
        ) from error
