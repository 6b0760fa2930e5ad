"""Shows on stderr how a build goes on: bars on a terminal, plain lines elsewhere. Decides nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID

    from emb.errors import EmbError
    from emb.spec.search import Metric, Question, SearchTrial
    from emb.spec.space import Space
    from emb.train import Progress


def _display(console: Console) -> Display:
    """Bars with a name before and a field `detail` behind them; nothing where `console` is no terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Rich would take over sys.stderr and print above the bar what the pipeline sends to its log.
        redirect_stdout=False,
        redirect_stderr=False,
    )


class Bars:
    """A pipeline.stage.Listener.

    Writes to a copy of stderr's descriptor, because the pipeline points descriptor 2 to a log while
    TensorFlow works.
    """

    def __init__(self) -> None:
        descriptor = os.dup(sys.stderr.fileno())
        self._stream = os.fdopen(descriptor, "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
        self._console = Console(file=self._stream)
        self._display: Display | None = None
        self._task: TaskID | None = None
        self._told_epoch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._stream.close()

    def stage_begins(self, name: str) -> None:
        if self._console.is_terminal:
            self._display = _display(self._console)
            self._task = self._display.add_task(name, total=None, detail="")
            self._display.start()

    def stage_ends(self, name: str, *, cached: bool, seconds: float) -> None:
        self._close()
        if not cached:
            self._console.print(f"{name}  {seconds:.1f} s", highlight=False, markup=False)

    def training(self, progress: Progress) -> None:
        accuracy = progress.accuracy if progress.validation_accuracy is None else progress.validation_accuracy
        kind = "accuracy" if progress.validation_accuracy is None else "validation"
        detail = f"loss {progress.loss:.4f}  {kind} {100 * accuracy:.2f} %  {_clock(progress.seconds_left)} left"
        if self._display is not None and self._task is not None:
            total = progress.epochs * progress.steps
            done = (progress.epoch - 1) * progress.steps + progress.step
            self._display.update(
                self._task,
                total=total,
                completed=done,
                detail=f"epoch {progress.epoch}/{progress.epochs}  {detail}",
            )
        elif progress.step == progress.steps and progress.epoch != self._told_epoch:
            self._told_epoch = progress.epoch
            self._console.print(f"epoch {progress.epoch}/{progress.epochs}  {detail}", highlight=False, markup=False)

    def downloading(self, file: str, done_bytes: int, total_bytes: int) -> None:
        if self._display is None:
            self.stage_begins(file)
        if self._display is not None and self._task is not None:
            detail = f"{done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB"
            self._display.update(self._task, total=total_bytes, completed=done_bytes, detail=detail)
        if done_bytes == total_bytes:
            self._close()

    def failed(self, message: str) -> None:
        self._close()
        self._console.print(f"[bold red]error:[/] {message}", highlight=False)

    def _close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None
            self._task = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


class Trials:
    """A pipeline.sweep.SweepListener: a bar for each trial at work on a terminal, a line for each end elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._display = _display(self._console)
        self._tasks: dict[str, TaskID] = {}
        self._count = self._ended = 0

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def planned(self, names: Sequence[str], processes: int) -> None:
        self._count = len(names)
        self._tell(f"{len(names)} trials, at most {processes} at a time")

    def goes_on(self, name: str, stage: str, share: float | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._display.add_task(name, total=None, detail="")
        total = None if share is None else 1.0
        self._display.update(self._tasks[name], total=total, completed=share or 0, detail=stage)

    def has_ended(self, name: str, error: EmbError | None) -> None:
        self._ended += 1
        if task := self._tasks.pop(name, None):
            self._display.remove_task(task)
        self._tell(f"{self._ended}/{self._count}  {name}" + (f": {error.what}" if error else ""))

    def timing(self, name: str) -> None:
        self._tell(f"timing  {name}")

    def _tell(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class Line:
    """One line on a terminal that says what is done now, and nothing elsewhere.

    It is written once and never animated: what is timed meanwhile shares the machine with it.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """In the place of the line before."""
        if self._console.is_terminal:
            width = self._console.width - 1
            self._console.file.write(f"\r{text[:width]:{width}}\r")
            self._console.file.flush()


class Searched(Trials):
    """A pipeline.search.SearchListener: the same, with a line for what each trial came to."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics: tuple[Metric, ...] = ()
        self._is_told_to_wait = False

    def search_begins(self, space: Space, question: Question, *, total: int, done: int, processes: int) -> None:
        from emb.spec.search import METRICS

        self._count = total
        self._metrics = tuple(dict.fromkeys((METRICS["accuracy"], METRICS["bytes"], *question.metrics)))
        self._tell(f"to {question}")
        self._tell(f"over {space}")
        found = f", {done} of them done" if done else ""
        self._tell(f"{total} trials{found}, {processes} at a time")

    def has_ended(self, name: str, error: EmbError | None) -> None:
        if task := self._tasks.pop(name, None):
            self._display.remove_task(task)

    def told(self, trial: SearchTrial, *, done: int, misses: bool) -> None:
        from emb.report.search import told_trial

        self._is_told_to_wait = False
        self._tell(f"{done}/{self._count}  {told_trial(trial, self._metrics)}" + ("  (misses)" if misses else ""))

    def waits(self) -> None:
        if not self._is_told_to_wait:
            self._tell("waiting for trials of other processes")
        self._is_told_to_wait = True

    def winners(self, names: Sequence[str]) -> None:
        self._tell(f"building {', '.join(names)}")
