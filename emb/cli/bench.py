"""emb bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emb.cli.options import DataDirectory, Host, Json, PixelRange, SshConfig


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A .tflite or .onnx file, or a build's directory.")
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR|FILE.npz", help="Test images; those of the file's own build by default."),
    ] = None,
    data_dir: DataDirectory = None,
    runtime: Annotated[str | None, typer.Option(help="Measure on this runtime alone.")] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="Threads for one inference; by default a row with one and a row with all."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Fresh processes a row, in turn; 10 by default, an interval from 6 on."),
    ] = None,
    pixels: PixelRange = None,
    crops: Annotated[
        int | None,
        typer.Option(help="Average over crops of each image: 1 (the centre), 5 (and corners), 10 (and mirrored)."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Measure several models as one that averages their probabilities.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="How many times as fast the second is as the first, and which is right.")
    ] = False,
    host: Host = None,
    ssh_config: SshConfig = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="With --host: how long each latency is measured; 30 by default.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --host: as many test images at most.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model file on every runtime, or with --host a deployed build on its board.

    Latency with its interval, cold start, images a second, peak memory, energy where there is a counter; accuracy too,
    where there are test images. With --compare two models in turn, with the interval of their ratio and McNemar's
    test. On a board: with one thread and with all, the clock, temperature and firmware's flags before and after,
    energy where there is a sensor, and the test images sent there; kept in the build's boards/.
    """
    from emb.errors import SpecError

    if len(models) > 1 and not ensemble and not compare:
        raise SpecError(
            "emb bench measures one model or build at a time",
            why=f"{len(models)} were given",
            fix="name one, or add --compare to hold two against each other, --ensemble to measure all as one",
        )
    if host is not None:
        _require_alone(threads=threads, rounds=rounds, pixels=pixels, crops=crops, ensemble=ensemble, compare=compare)
        _bench_on_board(
            models[0],
            host,
            ssh_config,
            as_json=as_json,
            data=data,
            data_dir=data_dir,
            runtime=runtime,
            seconds=seconds,
            most_images=images,
        )
        return
    if seconds is not None or images is not None:
        raise SpecError("--seconds and --images are for a board", fix="add --host, or leave them out")
    options: dict[str, Any] = {"data": data, "data_dir": data_dir, "runtime": runtime, "pixels": pixels}
    if rounds is not None and (compare or ensemble):
        other = "--compare" if compare else "--ensemble"
        raise SpecError(f"--rounds does not go with {other}", fix="leave one of them out")
    if compare:
        _compare(models, crops=crops, ensemble=ensemble, threads=threads, as_json=as_json, **options)
    elif ensemble:
        _ensemble(models, crops=crops, threads=threads, as_json=as_json, **options)
    else:
        _bench(models[0], crops=crops, threads=threads, rounds=rounds, as_json=as_json, **options)


def _bench(model: Path, *, rounds: int | None, pixels: str | None, as_json: bool, **options: Any) -> None:
    from emb.cli.output import print_json, stdout
    from emb.cli.progress import Line
    from emb.pipeline.bench import bench
    from emb.pipeline.pixels import pixels_of
    from emb.pipeline.rounds import ROUNDS
    from emb.report.bench import render

    with Line() as line:
        report = bench(model, pixels=pixels_of(pixels), rounds=rounds or ROUNDS, told=line.show, **options)
    if as_json:
        print_json(report.to_json())
    else:
        stdout().print(render(report))
    if report.errors:
        raise typer.Exit(1)


def _ensemble(models: list[Path], *, threads: str | None, pixels: str | None, as_json: bool, **options: Any) -> None:
    from emb.cli.output import print_json, stdout
    from emb.pipeline.ensemble import ensemble
    from emb.pipeline.pixels import pixels_of
    from emb.report.text import render_ensemble

    report = ensemble(models, threads=_one_count(threads), pixels=pixels_of(pixels), **options)
    if as_json:
        print_json(report.to_json())
    else:
        stdout().print(render_ensemble(report))


def _one_count(threads: str | None) -> int:
    """One thread, unless the user says otherwise."""
    from emb.bench import describe_machine
    from emb.pipeline.threads import threads_of

    return threads_of(threads or "1", cores=describe_machine().cores)[0]


def _compare(
    models: list[Path],
    *,
    crops: int | None,
    ensemble: bool,
    threads: str | None,
    pixels: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    from emb.cli.output import print_json, stdout
    from emb.errors import SpecError
    from emb.pipeline.compare import compare
    from emb.pipeline.pixels import pixels_of
    from emb.report.comparison import render

    if len(models) != 2:
        raise SpecError(
            f"--compare holds two models against each other, not {len(models)}",
            fix="name the baseline first, then the candidate: emb bench A B --compare",
        )
    for flag, is_set in (("--crops", crops is not None), ("--ensemble", ensemble)):
        if is_set:
            raise SpecError(f"{flag} does not go with --compare", fix="leave one of them out")
    comparison = compare(*models, threads=_one_count(threads), pixels=pixels_of(pixels), **options)
    if as_json:
        print_json(comparison.to_json())
    else:
        stdout().print(render(comparison))
    if comparison.errors:
        raise typer.Exit(1)


def _require_alone(
    *,
    threads: str | None,
    rounds: int | None,
    pixels: str | None,
    crops: int | None,
    ensemble: bool,
    compare: bool,
) -> None:
    from emb.errors import SpecError

    given = {
        "--threads": threads,
        "--rounds": rounds,
        "--pixels": pixels,
        "--crops": crops,
        "--ensemble": ensemble,
        "--compare": compare,
    }
    for flag, is_set in given.items():
        if is_set:
            raise SpecError(
                f"{flag} does not go with --host",
                why="a board runs what the bundle says, with one thread and with all",
                fix="leave one of them out",
            )


def _bench_on_board(build: Path, host: str, ssh_config: Path | None, *, as_json: bool, **options: Any) -> None:
    from emb.cli.output import print_json, stdout
    from emb.deploy.ssh import Ssh
    from emb.pipeline.bench_on_board import bench_on_board, save
    from emb.pipeline.board_channel import channel_to
    from emb.pipeline.deliverable import located
    from emb.pipeline.deploy import deployed_name
    from emb.pipeline.reports import BOARDS
    from emb.report.board import render

    build = located(build)
    chosen = {key: value for key, value in options.items() if value is not None}
    channel = channel_to(Ssh(host=host, config=ssh_config), deployed_name(build))
    report = bench_on_board(build, channel, device=host, **chosen)
    saved, page = save(report, (build if build.is_dir() else build.parent) / BOARDS)
    if as_json:
        print_json(report.to_json())
    else:
        stdout().print(render(report))
        stdout().print(f"kept in {saved} and {page}", highlight=False, markup=False, soft_wrap=True)
