"""emb sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emb.cli.options import (
    Assignments,
    BatchSize,
    Data,
    DataDirectory,
    Distill,
    Epochs,
    Json,
    PruneEpochs,
    complete_recipe,
)
from emb.cli.search_options import (
    Constraints,
    Maximize,
    Minimize,
    Search,
    Storage,
    Trials,
    Vary,
    parameters_of,
    question_of,
    require_search,
    run_search,
)

if TYPE_CHECKING:
    from emb.spec.sweep import Grid


def sweep(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A recipe's name or a recipe file (.toml).", autocompletion=complete_recipe
        ),
    ],
    quantize: Annotated[
        str | None, typer.Option(metavar="SCHEMES", help="As for emb build; all of them from each training.")
    ] = None,
    prune: Annotated[
        str | None, typer.Option(metavar="METHOD:GOAL,...", help="Prunings to try: none,channels:0.3,channels:0.5.")
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(metavar="FACTOR,...", help="Widths of the network to try: 0.5,1."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Build each with so many seeds.")] = 1,
    target: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Targets to build for: rpi4,coral-usb-rpi4,host.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at a time; one for each core by default, as far as memory goes."),
    ] = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    prune_epochs: PruneEpochs = None,
    distill: Distill = False,
    assignments: Assignments = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the builds go; sweeps/<recipe> or sweeps/<recipe>-search by default."),
    ] = None,
    as_json: Json = False,
    search: Search = False,
    trials: Trials = None,
    constraints: Constraints = None,
    minimize: Minimize = None,
    maximize: Maximize = None,
    vary: Vary = None,
    storage: Storage = None,
) -> None:
    """Build every combination, and show which are on the frontier of accuracy against size and time.

    What trials share is done once. Interrupted, it goes on where it was when it is run again. Times are taken at the
    end, one after the other, when nothing else runs. With --search, Optuna chooses what to try, judged by validation
    images; what is best under the constraints is built.
    """
    overrides = {
        "quantize.schemes": quantize,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "prune.epochs": prune_epochs,
        "prune.distill": distill or None,
    }
    if search:
        parameters, scheme = parameters_of(width=width, prune=prune, quantize=quantize, vary=vary)
        run_search(
            recipe,
            question=question_of(constraints, minimize, maximize),
            parameters=parameters,
            trials=trials,
            storage=storage,
            jobs=jobs,
            seeds=seeds,
            target=target,
            data=data,
            data_dir=data_dir,
            overrides={**overrides, "quantize.schemes": scheme},
            assignments=assignments,
            output=output,
            as_json=as_json,
        )
        return
    require_search(
        {
            "--trials": trials,
            "--constraint": constraints,
            "--minimize": minimize,
            "--maximize": maximize,
            "--vary": vary,
            "--storage": storage,
        }
    )
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Trials as Bars
    from emb.pipeline.sweep import sweep as run_sweep

    grid = _grid(width=width, prune=prune, target=target, seeds=seeds)
    with Bars() as bars:
        report = run_sweep(
            recipe,
            grid,
            listener=bars,
            output_directory=output,
            processes=jobs,
            data=data,
            data_dir=data_dir,
            overrides=overrides,
            assignments=assignments or (),
        )
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.sweep import render

        stdout().print(render(report))
    if report.failures:
        raise typer.Exit(1)


def _grid(*, width: str | None, prune: str | None, target: str | None, seeds: int) -> Grid:
    from emb.errors import SpecError
    from emb.spec.sweep import Grid

    try:
        widths = tuple(map(float, _parts(width))) or (None,)
    except ValueError:
        raise SpecError(
            f"--width {width!r} is no list of numbers", fix="separate them by commas: --width 0.5,1"
        ) from None
    try:
        return Grid(widths=widths, prunings=_parts(prune) or (None,), targets=_parts(target) or (None,), seeds=seeds)
    except ValueError as error:
        raise SpecError(f"the sweep cannot be: {error}") from error


def _parts(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
