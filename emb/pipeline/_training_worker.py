"""The process that `training_process` starts: trains one model and tells how far it is. Never imported by others.

stdin: a pickled Job, then nothing until the parent is gone.  stdout: lines of JSON.  stderr: whatever libraries print.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from emb.errors import EmbError
from emb.pipeline import training_stages
from emb.pipeline.fine_tuning import fine_tune
from emb.pipeline.stage import Context, Silence, Work
from emb.pipeline.training_process import Job
from emb.store import explained

if TYPE_CHECKING:
    from emb.train import Progress

Tell = Callable[[dict[str, Any]], None]


class _Teller(Silence):
    """A listener that passes on the training alone: the parent tells of stages."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def training(self, progress: Progress) -> None:
        self._tell({"progress": asdict(progress)})


def main() -> None:
    """Train the one job that stdin holds."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no message

    def tell(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with explained("write the cache", job.folder):
            _train(job, tell)
    except EmbError as error:
        tell({"error": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix})
    else:
        tell({"done": True})


def _train(job: Job, tell: Tell) -> None:
    from emb.train.distribution import device_count, distributed

    # Before the data is read, which may take minutes.
    device_count(job.devices)
    context = Context(job.recipe, job.request, job.trust_model, _Teller(tell), gradients=job.gradients)
    batch_size = min(job.recipe.train.batch_size, len(context.dataset.train))
    train = training_stages.tune if job.tuned else training_stages.train
    with distributed(job.devices, batch_size=batch_size):
        if job.lesson is not None:
            fine_tune(job.lesson, context)
        else:
            train(Work(job.folder, context, {}))


def _end_with_parent() -> None:
    """The parent keeps stdin open as long as it lives."""
    while os.read(0, 1):  # not through sys.stdin, whose lock this thread would hold when the process ends
        pass
    os._exit(130)


if __name__ == "__main__":
    main()
