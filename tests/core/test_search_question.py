"""What a search asks for and varies: texts, whole messages of their faults, and the mathematics of what is best."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import SpecError
from emb.spec.search import (
    METRICS,
    Constraint,
    Objective,
    Question,
    SearchTrial,
    best_of,
    constraint_of,
    metric_of,
    nearest_of,
)
from emb.spec.space import Choice, Parameter, Range, Space, domain_of, parameter_of, pruning_parameter_of

KNOWN = "known: accuracy, bytes, gzip_bytes, latency, macs, parameters"
FORM = "  fix: write it as METRIC<=NUMBER, with <=, >=, < or >: --constraint 'bytes<=50kB'"


@pytest.mark.parametrize(
    ("text", "metric", "operator", "limit"),
    [
        ("bytes<=50kB", "bytes", "<=", 50_000),
        ("bytes <= 50 KiB", "bytes", "<=", 51_200),
        ("gzip_bytes<1.5mb", "gzip_bytes", "<", 1_500_000),
        ("accuracy>=99.0", "accuracy", ">=", 99),
        (" accuracy > 99 % ", "accuracy", ">", 99),
        ("latency<=2ms", "latency", "<=", 2000),
        ("latency<=2us", "latency", "<=", 2),
        ("latency<.5 µs", "latency", "<", 0.5),
        ("macs<=1.5M", "macs", "<=", 1_500_000),
        ("parameters<=1e4", "parameters", "<=", 10_000),
    ],
)
def test_a_constraint_is_read(text: str, metric: str, operator: str, limit: float) -> None:
    found = constraint_of(text)
    assert (found.metric.name, found.operator, found.limit, found.text) == (metric, operator, limit, text.strip())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "bytes=<50",
            [
                "--constraint 'bytes=<50' cannot be read",
                "  why: bytes=<50",
                "            ^^ here one of <= >= < > is missing",
                FORM,
            ],
        ),
        (
            "bytes",
            [
                "--constraint 'bytes' cannot be read",
                "  why: bytes",
                "            ^ here one of <= >= < > is missing",
                FORM,
            ],
        ),
        (
            "<=50",
            [
                "--constraint '<=50' cannot be read",
                "  why: <=50",
                "       ^ here the name of a metric is missing",
                FORM,
            ],
        ),
        ("", ["--constraint '' cannot be read", "  why: ", "       ^ here the name of a metric is missing", FORM]),
        (
            "bytes<= many",
            [
                "--constraint 'bytes<= many' cannot be read",
                "  why: bytes<= many",
                f"{' ' * 15}^^^^ here a number is missing",
                FORM,
            ],
        ),
        (
            "bytes<=50kX",
            [
                "--constraint 'bytes<=50kX' cannot be read",
                "  why: bytes<=50kX",
                f"{' ' * 16}^^ 'kX' is no unit of bytes; known: B, kB, MB, KiB, MiB",
                FORM,
            ],
        ),
        (
            "latency<=2kB",
            [
                "--constraint 'latency<=2kB' cannot be read",
                "  why: latency<=2kB",
                f"{' ' * 17}^^ 'kB' is no unit of latency; known: us, µs, ms, s",
                FORM,
            ],
        ),
        (
            "macs<=1m",
            [
                "--constraint 'macs<=1m' cannot be read",
                "  why: macs<=1m",
                f"{' ' * 14}^ 'm' is no unit of macs; known: k, M, G",
                FORM,
            ],
        ),
        (
            "acuracy>=99",
            [
                "--constraint 'acuracy>=99' names an unknown metric",
                "  why: acuracy>=99",
                "       ^^^^^^^ 'acuracy' is no metric",
                f"  fix: did you mean 'accuracy'? {KNOWN}",
            ],
        ),
    ],
)
def test_a_constraint_that_cannot_be_read_is_shown_where(text: str, lines: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        constraint_of(text)
    assert str(caught.value).split("\n") == lines


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        metric_of("size", option="--minimize")
    assert str(caught.value) == f"--minimize names an unknown metric: 'size'\n  fix: {KNOWN}"
    with pytest.raises(SpecError, match="did you mean 'bytes'"):
        metric_of("byte", option="--minimize")


LIMITS = st.floats(min_value=0, max_value=1e12, allow_nan=False).map(lambda value: float(f"{value:.15g}"))


@given(metric=st.sampled_from(list(METRICS)), operator=st.sampled_from(["<=", ">=", "<", ">"]), limit=LIMITS)
def test_what_a_constraint_says_of_itself_is_read_as_the_same(metric: str, operator: Any, limit: float) -> None:
    one = Constraint(metric=METRICS[metric], operator=operator, limit=limit, text="")
    again = constraint_of(str(one))
    assert (again.metric, again.operator, again.limit) == (one.metric, one.operator, one.limit)


@given(
    metric=st.sampled_from(list(METRICS)), operator=st.sampled_from(["<=", ">=", "<", ">"]), limit=LIMITS, value=LIMITS
)
def test_a_violation_is_positive_exactly_where_the_constraint_does_not_hold(
    metric: str, operator: Any, limit: float, value: float
) -> None:
    one = Constraint(metric=METRICS[metric], operator=operator, limit=limit, text="")
    holds = {"<=": value <= limit, ">=": value >= limit, "<": value < limit, ">": value > limit}[operator]
    assert (one.violation(value) == 0) is holds
    assert one.violation(value) >= 0


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [("bytes<=20kB", 30_000, 0.5), ("accuracy>=99", 98, 1.0), ("accuracy>=99", 98.5, 0.5), ("macs<=0", 3, 3.0)],
)
def test_a_violation_is_relative(text: str, value: float, violation: float) -> None:
    assert constraint_of(text).violation(value) == pytest.approx(violation)


def test_a_question_names_each_metric_once_as_an_objective() -> None:
    smaller = Objective(metric=METRICS["bytes"], direction="minimize")
    with pytest.raises(ValueError, match="bytes is named twice"):
        Question(objectives=(smaller, Objective(metric=METRICS["bytes"], direction="maximize")))
    with pytest.raises(ValueError, match="needs an objective"):
        Question(objectives=())
    question = Question(objectives=(smaller,), constraints=(constraint_of("latency<1ms"),))
    assert question.is_timed
    assert str(question) == "minimize bytes, latency<1000"


# What is best

QUESTION = Question(
    objectives=(
        Objective(metric=METRICS["accuracy"], direction="maximize"),
        Objective(metric=METRICS["bytes"], direction="minimize"),
    ),
    constraints=(constraint_of("macs<=5"),),
)


def trials_of(figures: list[tuple[int, int, int]]) -> list[SearchTrial]:
    return [
        SearchTrial(number=number, values={}, metrics={"accuracy": accuracy, "bytes": size, "macs": macs})
        for number, (accuracy, size, macs) in enumerate(figures)
    ]


FIGURES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(3, 7)), max_size=12)


@given(FIGURES)
def test_the_best_keep_the_constraints_and_are_those_that_nothing_dominates(
    figures: list[tuple[int, int, int]],
) -> None:
    best = best_of(trials_of(figures), QUESTION)
    kept = {(accuracy, size) for accuracy, size, macs in figures if macs <= 5}
    expected = {
        one for one in kept if not any(other != one and other[0] >= one[0] and other[1] <= one[1] for other in kept)
    }
    assert [(one.metrics["accuracy"], one.metrics["bytes"]) for one in best] == sorted(expected, reverse=True)


def test_of_equal_trials_the_first_is_best_and_a_failed_one_never() -> None:
    failed = SearchTrial(number=9, values={}, metrics={}, error="why")
    found = best_of([*reversed(trials_of([(3, 1, 5), (3, 1, 5)])), failed], QUESTION)
    assert [one.number for one in found] == [0]
    assert nearest_of([failed], QUESTION) is None


def test_the_nearest_is_the_one_that_misses_by_the_least_in_all() -> None:
    found = nearest_of(trials_of([(9, 9, 9), (1, 1, 7), (9, 0, 8)]), QUESTION)
    assert found is not None
    assert found.number == 1


# What is varied


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("a.b=0.25..1", Range(low=0.25, high=1)),
        ("a.b=1e-4..1e-2:log", Range(low=1e-4, high=1e-2, log=True)),
        ("a.b=2..8", Range(low=2, high=8, whole=True)),
        ("a.b=-3..8:linear", Range(low=-3, high=8, whole=True)),
        ("a.b=64, 128", Choice(values=(64, 128))),
        ("a.b=adam,sgd", Choice(values=("adam", "sgd"))),
        ("a.b=true,false", Choice(values=(True, False))),
        ("a.b=1,true", Choice(values=(1, True))),
        ("a.b=0.5", Choice(values=(0.5,))),
    ],
)
def test_what_is_varied_is_read(text: str, domain: Range | Choice) -> None:
    assert parameter_of(text) == Parameter(field="a.b", domain=domain)


def test_prunings_are_texts_or_a_range_of_goals() -> None:
    chosen = pruning_parameter_of("none, channels:bytes=30kB,magnitude:2:4")
    assert chosen.samples == ("none", "channels:bytes=30kB", "magnitude:2:4")
    ranged = pruning_parameter_of("channels:0.2..0.8")
    assert (ranged.value_of(0.56789), ranged.samples) == ("channels:0.568", ("channels:0.2", "channels:0.8"))
    assert pruning_parameter_of("cluster:4..64").value_of(17) == "cluster:17"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "epochs",
            "--vary 'epochs' cannot be read\n  why: it does not begin with FIELD=\n"
            "  fix: write it as --vary train.learning_rate=1e-4..1e-2:log or --vary train.batch_size=64,128",
        ),
        (
            "a=1..",
            "--vary 'a=1..' cannot be read\n  why: '1..' is no range of two numbers\n"
            "  fix: write it as LOW..HIGH or LOW..HIGH:log, e.g. 1e-4..1e-2:log",
        ),
        (
            "a=1..2:lg",
            "--vary 'a=1..2:lg' cannot be read\n  why: 'lg' is no scale\n  fix: known: log, linear (the default)",
        ),
        ("a=2..1", "--vary 'a=2..1' cannot be\n  why: 2 is not below 1\n  fix: correct the range"),
        (
            "a=0..1:log",
            "--vary 'a=0..1:log' cannot be\n"
            "  why: 0 has no logarithm: of a range on a log scale both ends lie above 0\n  fix: correct the range",
        ),
        ("a=1,1", "--vary 'a=1,1' cannot be\n  why: a value is named twice\n  fix: name each value once"),
        ("a=,", "--vary 'a=,' names no value\n  fix: write A,B,C or LOW..HIGH"),
    ],
)
def test_what_cannot_be_varied_is_told(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parameter_of(text)
    assert str(caught.value) == message


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e3), st.floats(0, 1))
def test_a_drawn_value_has_three_digits_and_stays_within_the_ends(low: float, ratio: float, place: float) -> None:
    domain = Range(low=low, high=low * ratio)
    drawn = min(low + place * (domain.high - low), domain.high)
    value = domain.value_of(drawn)
    assert domain.low <= value <= domain.high
    assert value == pytest.approx(drawn, rel=0.005)
    assert value in (domain.low, domain.high) or len(f"{value:e}".split("e")[0].rstrip("0").replace(".", "")) <= 3


def test_a_space_knows_how_many_trials_it_has() -> None:
    whole, choice = parameter_of("a=2..8"), parameter_of("b=x,y")
    assert Space(parameters=(whole, choice)).size == 14
    assert Space(parameters=(whole, parameter_of("c=0.5..1"))).size is None
    with pytest.raises(ValueError, match="a is varied twice"):
        Space(parameters=(whole, whole))


def test_a_range_of_the_width_is_logarithmic_unless_it_says_otherwise() -> None:
    assert domain_of("0.25..1", option="--width", log=True) == Range(low=0.25, high=1, log=True)
    assert domain_of("0.25..1:linear", option="--width", log=True) == Range(low=0.25, high=1)
