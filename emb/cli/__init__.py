"""The command line: parses, calls the pipeline, prints. One short file per command; heavy imports wait for the run."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from emb.cli import (
    bench,
    build,
    bundle,
    check,
    data,
    deploy,
    doctor,
    inspect,
    recipes,
    report,
    run,
    sweep,
    targets,
    train,
    version,
    zoo,
)
from emb.cli.output import print_error
from emb.errors import EmbError


class _Commands(TyperGroup):
    """The one place where an EmbError becomes words and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EmbError as error:
            print_error(error, as_json=bool(ctx.obj and ctx.obj.get("json")))
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(
    name="emb",
    cls=_Commands,
    help="A compiler for small machines: classic CNNs in, verified int8 TFLite and ONNX out.",
    no_args_is_help=True,
    # Plain text: Rich's panels would take longer than everything else that `emb --help` does.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("build")(build.build)
app.command("train")(train.train)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("sweep")(sweep.sweep)
app.command("report")(report.report)
app.command("check")(check.check)
app.command("deploy")(deploy.deploy)
app.command("bundle")(bundle.bundle)
app.command("inspect")(inspect.inspect)
app.add_typer(data.app, name="data")
app.command("recipes")(recipes.recipes)
app.command("targets")(targets.targets)
app.command("zoo")(zoo.zoo)
app.add_typer(doctor.app, name="doctor")
app.command("version")(version.version)


def main() -> None:
    """Entry point of the `emb` command."""
    # Keras imports scikit-learn for wrappers that nothing here uses, and with it SciPy: a fifth of TensorFlow's start.
    # Without this module of it Keras takes it as not installed.
    sys.modules.setdefault("sklearn.base", None)  # type: ignore[arg-type]
    app()
