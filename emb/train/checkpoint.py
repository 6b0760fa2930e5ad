"""The state of a training between two epochs, in one file that is never half-written. Knows nothing of Keras."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import StoreError
from emb.train.history import History

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE_NAME = "checkpoint.npz"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """fingerprint: of everything that decides the training; a checkpoint of another training is not used.

    variables: the model's and the optimizer's, in their own order.
    """

    fingerprint: str
    history: History
    variables: tuple[NDArray[Any], ...]


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Replace the checkpoint in `directory` by this one, in one step. Raises StoreError if it cannot be written."""
    header = {"fingerprint": checkpoint.fingerprint, "history": checkpoint.history.to_json()}
    arrays = {f"variable{number}": value for number, value in enumerate(checkpoint.variables)}
    content = io.BytesIO()
    np.savez(content, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / FILE_NAME)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"the training's state cannot be written to {directory}",
            why=(error.strerror or str(error)).lower(),
            fix="free some disk space or choose a directory that can be written, then run it again",
        ) from error


def read(directory: Path, *, fingerprint: str) -> Checkpoint | None:
    """The checkpoint in `directory`; None if there is none, if it is damaged or if it is of another training."""
    try:
        # Read first: given a path, numpy leaves a damaged file open.
        file = io.BytesIO((directory / FILE_NAME).read_bytes())
        with np.load(file, allow_pickle=False) as content:
            header = json.loads(content["header"].tobytes())
            if header["fingerprint"] != fingerprint:
                return None
            variables = tuple(content[f"variable{number}"] for number in range(len(content.files) - 1))
            history = History.from_json(header["history"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return Checkpoint(fingerprint=fingerprint, history=history, variables=variables)
