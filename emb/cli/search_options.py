"""The options of `emb sweep --search`, and what they ask for together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from emb.spec.search import Question
    from emb.spec.space import Parameter

Search = Annotated[bool, typer.Option("--search", help="Look for the best instead of building every combination.")]
Trials = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Of a search, with those that are done; 40 by default."),
]
Constraints = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        metavar="METRIC<=NUMBER",
        help="What the search must keep to: bytes<=50kB, accuracy>=99, latency<2ms, macs<=1M. May be repeated.",
    ),
]
Minimize = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC",
        help="accuracy, bytes, gzip_bytes, latency, macs or parameters. May be repeated, for the frontier of several.",
    ),
]
Maximize = Annotated[
    list[str] | None, typer.Option(metavar="METRIC", help="The same; accuracy by default, if nothing is minimized.")
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=LOW..HIGH",
        help="What a search varies: train.learning_rate=1e-4..1e-2:log, train.batch_size=64,128. May be repeated.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where a search keeps its trials, for several processes: postgresql://USER@HOST/NAME; "
        "a file beside the builds by default.",
    ),
]
_TRIALS = 40


def question_of(constraints: list[str] | None, minimize: list[str] | None, maximize: list[str] | None) -> Question:
    """What the options ask for. Raises SpecError."""
    from emb.errors import SpecError
    from emb.spec.search import METRICS, Objective, Question, constraint_of, metric_of

    objectives = [
        *(Objective(metric=metric_of(name, option="--minimize"), direction="minimize") for name in minimize or ()),
        *(Objective(metric=metric_of(name, option="--maximize"), direction="maximize") for name in maximize or ()),
    ]
    if not objectives:
        objectives = [Objective(metric=METRICS["accuracy"], direction="maximize")]
    try:
        return Question(objectives=tuple(objectives), constraints=tuple(map(constraint_of, constraints or ())))
    except ValueError as error:
        raise SpecError(f"the search cannot be: {error}", fix="name each metric once") from None


def parameters_of(
    *, width: str | None, prune: str | None, quantize: str | None, vary: list[str] | None
) -> tuple[list[Parameter], str | None]:
    """(what is varied, the scheme where there is one alone). Raises SpecError."""
    from emb.spec.space import Choice, Parameter, domain_of, parameter_of, pruning_parameter_of

    parameters = []
    if width is not None:
        domain = domain_of(width, option=f"--width {width!r}", log=True)
        parameters.append(Parameter(field="model.arguments.width", domain=domain))
    if prune is not None:
        parameters.append(pruning_parameter_of(prune))
    schemes = tuple(part.strip() for part in (quantize or "").split(",") if part.strip())
    if len(schemes) > 1:
        parameters.append(Parameter(field="quantize.schemes", domain=Choice(values=schemes)))
    parameters += map(parameter_of, vary or ())
    return parameters, schemes[0] if len(schemes) == 1 else None


def require_search(given: Mapping[str, Any]) -> None:
    """Raise SpecError for options of a search without one. given: option -> its value."""
    from emb.errors import SpecError

    if named := [option for option, value in given.items() if value]:
        raise SpecError(f"{named[0]} belongs to a search", fix="add --search, or leave it out")


def require_one(*, seeds: int, target: str | None) -> None:
    """Raise SpecError for more than one seed or target."""
    from emb.errors import SpecError

    if seeds > 1:
        raise SpecError("--seeds does not apply to a search", fix="build its best with several seeds afterwards")
    if target and "," in target:
        raise SpecError("a search is for one target", why=f"--target names several: {target}", fix="name one of them")


def run_search(
    recipe: str,
    question: Question,
    parameters: list[Parameter],
    *,
    trials: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search, and print what came of it. options: of pipeline.search.search."""
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Searched
    from emb.pipeline.search import search

    with Searched() as listener:
        report = search(recipe, question, parameters, trials=trials or _TRIALS, listener=listener, **options)
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.search import render

        stdout().print(render(report))
    if not report.best:
        raise typer.Exit(1)
