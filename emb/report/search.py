"""A search on the terminal: what it found, or by how much it missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emb.report.columns import ABSENT
from emb.spec.search import METRICS, Constraint, Metric, SearchTrial
from emb.spec.search_report import SearchReport

if TYPE_CHECKING:
    from rich.console import Group

# Of trials that are not the best, so many are shown.
_OTHERS = 5


def render(report: SearchReport) -> Group:
    """The best trials with what the test images say of them, then those that came next."""
    from rich.console import Group
    from rich.text import Text

    from emb.report.text import Figures

    trials = _shown(report)
    fields = list(trials[0].values)
    metrics = _columns(report)
    headers = ["trial", *(_short(field) for field in fields), *(metric.name for metric in metrics)]
    table = Figures(
        headers=[*headers, "test %", "95 %", "best"],
        rows=[_cells(trial, report, fields, metrics) for trial in trials],
        left_aligned=1,
    )
    missed = [Text(line, style="bold red") for line in _missed(report)]
    told = [Text(line, style="dim") for line in _notes(report)]
    last = report.page or f"{report.directory}/search.json"
    return Group(table, Text(), *missed, *told, Text(last, style="bold"))


def told_trial(trial: SearchTrial, metrics: tuple[Metric, ...]) -> str:
    """One trial on a line: its metrics, and its values."""
    if trial.error:
        return f"{trial.name}  {' '.join(trial.error.split())}  {trial.settings}"
    figures = "  ".join(metric.told(trial.metrics[metric.name]) for metric in metrics)
    return f"{trial.name}  {figures}  {trial.settings}"


def _shown(report: SearchReport) -> list[SearchTrial]:
    """The best; then those that miss the constraints by the least, or come nearest in the first objective."""
    best, question = report.winners, report.question
    others = [trial for trial in report.trials if trial.metrics and trial.number not in report.best]
    others.sort(key=lambda one: (sum(question.violations(one.metrics).values()), question.losses(one.metrics)))
    return [*best, *others[:_OTHERS]]


def _columns(report: SearchReport) -> list[Metric]:
    """Accuracy and bytes, which everyone asks for, and what else the question names."""
    return list(dict.fromkeys((METRICS["accuracy"], METRICS["bytes"], *report.question.metrics)))


def _short(field: str) -> str:
    """Without the tables before it."""
    return field.rsplit(".", 1)[-1]


def _cells(trial: SearchTrial, report: SearchReport, fields: list[str], metrics: list[Metric]) -> tuple[str, ...]:
    tested = report.tests.get(trial.number)
    accuracy = interval = ABSENT
    if tested and tested.accuracy is not None:
        accuracy = f"{100 * tested.accuracy:.2f}"
    if tested and tested.accuracy_low is not None and tested.accuracy_high is not None:
        interval = f"{100 * tested.accuracy_low:.2f}–{100 * tested.accuracy_high:.2f}"
    violations = report.question.violations(trial.metrics)
    mark = "best" if trial.number in report.best else "" if not any(violations.values()) else "misses"
    return (
        str(trial.number),
        *(str(trial.values[field]) for field in fields),
        *(metric.figure(trial.metrics[metric.name]) for metric in metrics),
        accuracy,
        interval,
        mark,
    )


def _missed(report: SearchReport) -> list[str]:
    if report.nearest is None:
        return []
    texts = " and ".join(one.text for one in report.question.constraints)
    nearest = report.nearest
    misses = [
        _told_miss(one, nearest.metrics[one.metric.name])
        for one in report.question.constraints
        if one.violation(nearest.metrics[one.metric.name])
    ]
    count = sum(bool(trial.metrics) for trial in report.trials)
    return [f"none of {count} trials keeps {texts}", f"nearest: {nearest.name}, with {', '.join(misses)}"]


def _told_miss(constraint: Constraint, value: float) -> str:
    metric = constraint.metric
    if value == constraint.limit:
        return f"{metric.name} {metric.figure(value)}, which is the limit itself"
    direction = "above" if value > constraint.limit else "below"
    difference = abs(value - constraint.limit)
    gap = f"{metric.figure(difference)} points" if metric.kind == "percent" else metric.told(difference)
    return f"{metric.name} {metric.figure(value)}, {gap} {direction} the limit"


def _notes(report: SearchReport) -> list[str]:
    failed = [trial for trial in report.trials if trial.error]
    reasons = dict.fromkeys(trial.error.splitlines()[0] for trial in failed)
    built = f"; {len(report.builds)} of {len(report.best)} were built" if len(report.builds) < len(report.best) else ""
    lines = [
        f"searched to {report.question} over {', '.join(report.space)}",
        "accuracy is over validation images, by which the trials were judged; the test images judged the best alone, "
        f"and chose nothing{built}",
        f"{len(report.trials)} trials in {report.storage}; this run took {report.seconds:,.0f} s on {report.machine}",
    ]
    return lines + [
        f"{sum(trial.error.splitlines()[0] == reason for trial in failed)} could not be built: {reason}"
        for reason in reasons
    ]
