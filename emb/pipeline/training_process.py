"""Runs the model stage in a process of its own, on another Keras backend than this one's. Knows no training loop.

The worker (`_training_worker.py`) gets one job and answers in lines of JSON: how far it is, an error, or that it is
done. It writes into the stage's own folder, so that an interrupted training resumes there. It ends when this process
does, for whatever reason.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from emb import errors
from emb.errors import EmbError, RuntimeFailure
from emb.pipeline.engine import Engine
from emb.pipeline.fine_tuning import Lesson
from emb.pipeline.stage import Context, Listener, Work
from emb.spec.dataset import DataRequest
from emb.spec.recipe import Recipe

_TAIL_BYTES = 8192
_TAIL_LINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training. folder: gets model.keras and history.json.  tuned: of the user's own model, not of a builder's.

    lesson: the fine-tuning of a pruned model instead, into its own folder.
    """

    recipe: Recipe
    request: DataRequest
    trust_model: bool
    gradients: bool
    folder: Path
    tuned: bool
    devices: int | Literal["all"]
    lesson: Lesson | None = None


def train_in_own_process(work: Work, *, engine: Engine, tuned: bool) -> None:
    """What training_stages.train (or, if `tuned`, its tune) does, on the engine's backend and devices.

    Raises what the training raises; RuntimeFailure if its process dies.
    """
    context = work.context
    job = Job(
        recipe=context.recipe,
        request=context.request,
        trust_model=context.trust_model,
        gradients=context.gradients,
        folder=work.folder.absolute(),
        tuned=tuned,
        devices=engine.devices,
    )
    _run(job, context.listener, engine)


def fine_tune_in_own_process(lesson: Lesson, context: Context, *, engine: Engine) -> None:
    """What fine_tuning.fine_tune does, on the engine's backend and devices. Raises as train_in_own_process does."""
    job = Job(
        recipe=context.recipe,
        request=context.request,
        trust_model=context.trust_model,
        gradients=False,
        folder=lesson.folder,
        tuned=False,
        devices=engine.devices,
        lesson=lesson,
    )
    _run(job, context.listener, engine)


def _run(job: Job, listener: Listener, engine: Engine) -> None:
    with tempfile.TemporaryFile(prefix="emb-training-") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emb.pipeline._training_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(engine),
            # A Ctrl-C in the terminal goes to this process alone, which then ends the worker.
            process_group=0 if os.name == "posix" else None,
        )
        try:
            if not _hear(process, job, listener):
                raise _death(process.wait(), log, engine)
        finally:
            process.kill()  # every file it has finished is whole: it renames
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()
            process.wait()


def _hear(process: subprocess.Popen[bytes], job: Job, listener: Listener) -> bool:
    """Hand over the job and pass on what is told; whether the worker said that it is done. Raises its errors."""
    from emb.train import Progress

    with suppress(BrokenPipeError):
        # Stays open: the worker ends when it is closed.
        pickle.dump(job, process.stdin)
        process.stdin.flush()
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            listener.training(Progress(**message["progress"]))
        elif "error" in message:
            raise _error(message)
        else:
            return True
    return False


def _error(message: dict[str, Any]) -> EmbError:
    error: EmbError = getattr(errors, message["error"])(message["what"], why=message["why"], fix=message["fix"])
    return error


def _death(exit_code: int, log: IO[bytes], engine: Engine) -> RuntimeFailure:
    """exit_code: negative for a signal, as subprocess gives it."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    words = "\n       ".join(["its last words:", *lines[-_TAIL_LINES:]]) if lines else "it left no last words"
    fix = "run it again: it continues after its last finished epoch"
    if "RESOURCE_EXHAUSTED" in words or exit_code == -9:
        fix += "; if memory ran out, with a lower train.batch_size"
    how = f"was killed ({signal.Signals(-exit_code).name})" if exit_code < 0 else f"failed (exit code {exit_code})"
    return RuntimeFailure(f"the training on {engine.backend} {how}", why=words, fix=fix)


def _environment(engine: Engine) -> dict[str, str]:
    """The worker searches modules exactly where this process does."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return {**os.environ, "KERAS_BACKEND": engine.backend, "PYTHONPATH": path}
