"""Two models beside each other, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.report.columns import ABSENT
from emb.spec.comparison import AccuracyPair, Comparison, Pair

if TYPE_CHECKING:
    from rich.console import Group

HEADERS = (
    *("format", "scheme", "runtime", "baseline µs", "candidate µs", "times as fast", "95 %", "verdict"),
    *("points", "p", "changed"),
)
_LEFT_ALIGNED = 3
# Of the images that changed, so many are named; --json has all.
_NAMED = 10


def render(comparison: Comparison) -> Group:
    """One line a pair, then what a reader must know beside it."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    rows = [cells(pair) for pair in comparison.pairs]
    table = Figures(headers=HEADERS, rows=rows, left_aligned=_LEFT_ALIGNED)
    lines = [Text(line, style="dim") for line in told(comparison)]
    failed = [Text(f"error: {error}", style="bold red") for error in comparison.errors]
    return Group(table, Text(), *lines, *failed)


def cells(pair: Pair) -> tuple[str, ...]:
    """The texts of one line, in the order of HEADERS."""
    points = chance = changed = ABSENT
    if pair.accuracy is not None:
        points = f"{pair.accuracy.points:+.2f}"
        chance = f"{pair.accuracy.p_value:.2g}"
        changed = f"{len(pair.accuracy.changed):,}"
    return (
        pair.format,
        pair.scheme,
        pair.runtime,
        f"{pair.baseline_us:,.1f}",
        f"{pair.candidate_us:,.1f}",
        f"{pair.speed:.3f}",
        f"{pair.low:.3f}–{pair.high:.3f}",
        pair.verdict,
        points,
        chance,
        changed,
    )


def told(comparison: Comparison) -> list[str]:
    """What stands below the table."""
    lines = [f"{comparison.candidate} against {comparison.baseline}; {comparison.images}"]
    for pair in comparison.pairs:
        if pair.accuracy is not None and pair.accuracy.changed:
            lines += _changed_lines(pair, pair.accuracy)
    threads = {pair.threads for pair in comparison.pairs}
    lines += [
        f"one image at a time, {'one thread' if count == 1 else f'{count} threads'}, in turn, measured on "
        f"{comparison.machine}"
        for count in sorted(threads)
    ]
    return [*lines, *comparison.notes]


def _changed_lines(pair: Pair, accuracy: AccuracyPair) -> list[str]:
    said = "may be chance" if accuracy.is_chance else "is no chance, at 5 %"
    shares = [100 * correct / accuracy.images for correct in (accuracy.baseline_correct, accuracy.candidate_correct)]
    numbers = ", ".join(str(image.number) for image in accuracy.changed[:_NAMED])
    more = f" and {len(accuracy.changed) - _NAMED:,} more" if len(accuracy.changed) > _NAMED else ""
    return [
        f"{pair.scheme} {pair.format} on {pair.runtime}: {shares[0]:.2f} % and {shares[1]:.2f} % right; "
        f"{accuracy.baseline_alone:,} images only the baseline, {accuracy.candidate_alone:,} only the candidate: "
        f"the difference {said}",
        f"  test images with another class, counted from 0: {numbers}{more}",
    ]
