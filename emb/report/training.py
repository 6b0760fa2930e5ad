"""A training on the terminal: its last epochs as a table, and where its files are. Trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.spec.training import TrainingReport

if TYPE_CHECKING:
    from rich.console import Group

_HEAD = ("epoch", "loss", "accuracy %", "validation %", "learning rate", "seconds")


def render_training(report: TrainingReport) -> Group:
    """The last epoch, the one whose weights are kept (marked with *) if it is another, and notes."""
    from rich.console import Group
    from rich.text import Text

    shown = sorted({report.kept_epoch, len(report.epochs)} - {0})
    rows = [_HEAD, *(_cells(report, number) for number in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        Text(
            "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)), style="" if index else "bold"
        )
        for index, row in enumerate(rows)
    ]
    place = f"{report.directory}" + ("  (nothing had changed)" if report.cached else "")
    return Group(*lines, Text(), *(Text(note, style="dim") for note in _notes(report)), Text(place, style="bold"))


def _cells(report: TrainingReport, number: int) -> tuple[str, ...]:
    epoch = report.epochs[number - 1]
    mark = "*" if number == report.kept_epoch != len(report.epochs) else ""
    return (
        f"{mark}{number}/{len(report.epochs)}",
        f"{epoch['loss']:.4f}",
        f"{100 * epoch['accuracy']:.2f}",
        f"{100 * epoch['validation_accuracy']:.2f}",
        f"{epoch['learning_rate']:.3g}",
        f"{epoch['seconds']:.1f}",
    )


def _notes(report: TrainingReport) -> list[str]:
    devices = {1: "one device", "all": "all devices"}.get(report.devices, f"{report.devices} devices")
    notes = [
        f"{report.recipe} on {report.data}, trained with Keras on {report.backend}, {devices}, {report.seconds:.1f} s"
    ]
    if report.kept_epoch not in (0, len(report.epochs)):
        notes.append("* the epoch whose weights were kept")
    if (norms := report.gradients) is not None:
        notes.append(
            f"median gradient norm in the last epoch: {norms.first_norm:.3g} in {norms.first_layer}, "
            f"{norms.last_norm:.3g} in {norms.last_layer}"
        )
    if (surface := report.surface) is not None:
        notes.append(
            f"loss over {surface.images} validation images: {surface.loss_of_model:.3g}, and {surface.lowest_loss:.3g} "
            f"to {surface.highest_loss:.3g} around the model ({surface.points} x {surface.points} points)"
        )
    if report.tensorboard is not None:
        notes.append(f"tensorboard --logdir {report.tensorboard.parent}")
    return [*notes, *report.notes]
