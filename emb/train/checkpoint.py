"""The state of a training between two epochs, in one file that is never half-written. Knows nothing of Keras."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import StoreError
from emb.train.history import Epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE_NAME = "checkpoint.npz"
_GROUPS = ("variables", "optimizer", "kept")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """fingerprint: of everything that decides the training; a checkpoint of another training is not used.

    epochs: the finished ones.  variables: the model's, as the last step left them.  optimizer: the optimizer's.
    kept: the model's variables as they would be if the training ended now; empty if that is what `variables` are.
    norms: (steps, variables) float32, of the gradients, if they are recorded; else (0, 0).
    """

    fingerprint: str
    epochs: tuple[Epoch, ...] = ()
    variables: tuple[NDArray[Any], ...] = ()
    optimizer: tuple[NDArray[Any], ...] = ()
    kept: tuple[NDArray[Any], ...] = ()
    norms: NDArray[np.float32]


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Replace the checkpoint in `directory` by this one, in one step. Raises StoreError if it cannot be written."""
    header = {"fingerprint": checkpoint.fingerprint, "epochs": [asdict(epoch) for epoch in checkpoint.epochs]}
    arrays = {f"{group}{number}": value for group in _GROUPS for number, value in enumerate(getattr(checkpoint, group))}
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(content, header=text, norms=checkpoint.norms, **arrays)
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
            epochs = tuple(Epoch(**epoch) for epoch in header["epochs"])
            groups = {group: _group(content, group) for group in _GROUPS}
            return Checkpoint(fingerprint=fingerprint, epochs=epochs, norms=content["norms"], **groups)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _group(content: Any, group: str) -> tuple[NDArray[Any], ...]:
    count = sum(name.startswith(group) for name in content.files)
    return tuple(content[f"{group}{number}"] for number in range(count))
