"""emb sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    require_one,
    require_search,
    run_search,
)

if TYPE_CHECKING:
    from emb.pipeline.workers import MakeReady
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
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Who makes trials ready: this machine, or a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Ray's: auto, HOST:PORT or ray://HOST:PORT; one of our own by default."),
    ] = None,
    trial_cpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPUs (and threads) that Ray gives each trial; 1 by default.")
    ] = None,
    trial_gpus: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="GPUs that Ray gives each trial; none by default.")
    ] = None,
    trial_memory: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="GIB", help="Memory for each trial; reckoned from its network by default."),
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
    memory_bytes = None if trial_memory is None else int(trial_memory * 2**30)
    workers = _workers(engine, address=address, cpus=trial_cpus, gpus=trial_gpus, memory_bytes=memory_bytes)
    common: dict[str, Any] = {"data": data, "data_dir": data_dir, "assignments": assignments or ()}
    if search:
        question = question_of(constraints, minimize, maximize)
        parameters, scheme = parameters_of(width=width, prune=prune, quantize=quantize, vary=vary)
        require_one(seeds=seeds, target=target)
        with workers as (make_ready, room):
            run_search(
                recipe,
                question,
                parameters,
                trials=trials,
                as_json=as_json,
                storage=storage,
                output_directory=output,
                processes=jobs or room,
                make_ready=make_ready,
                target=target,
                overrides={**overrides, "quantize.schemes": scheme},
                **common,
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
    grid = _grid(width=width, prune=prune, target=target, seeds=seeds)
    with workers as (make_ready, room):
        _run_grid(
            recipe,
            grid,
            as_json=as_json,
            output_directory=output,
            processes=jobs or room,
            make_ready=make_ready,
            overrides=overrides,
            **common,
        )


def _run_grid(recipe: str, grid: Grid, *, as_json: bool, **options: Any) -> None:
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Trials as Bars
    from emb.pipeline.sweep import sweep

    with Bars() as bars:
        report = sweep(recipe, grid, listener=bars, **options)
    if as_json:
        print_json(report.to_json())
    else:
        from emb.report.sweep import render

        stdout().print(render(report))
    if report.failures:
        raise typer.Exit(1)


@contextmanager
def _workers(
    engine: str, *, address: str | None, cpus: int | None, gpus: float | None, memory_bytes: int | None
) -> Iterator[tuple[MakeReady, int | None]]:
    """What makes trials ready, and how many at a time it does; None: the sweep decides."""
    from functools import partial

    from emb.errors import SpecError
    from emb.pipeline.ray_workers import Share, on_ray
    from emb.pipeline.workers import Crew, make_ready

    if engine not in ("local", "ray"):
        raise SpecError(f"unknown engine {engine!r}", fix="known: local, ray")
    if engine == "local":
        given = {"--address": address, "--trial-cpus": cpus, "--trial-gpus": gpus}
        for option in (name for name, value in given.items() if value is not None):
            raise SpecError(f"{option} does not apply to --engine local", fix="leave it out, or take --engine ray")
        with Crew() as crew:
            yield partial(make_ready, trial_bytes=memory_bytes, crew=crew), None
        return
    with on_ray(address, share=Share(cpus=cpus, gpus=gpus or 0.0, memory_bytes=memory_bytes)) as cluster:
        yield cluster.make_ready, cluster.processes


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
