"""emb deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emb.cli.options import Host, Json, SshConfig, complete_target

if TYPE_CHECKING:
    from emb.pipeline.deploy import Outcome


def deploy(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[BUILD|BUNDLE|NAME]", help="A build, a bundle, or a name that is on the board."),
    ] = None,
    host: Host = None,
    hosts: Annotated[Path | None, typer.Option(metavar="FILE", help="Many hosts: one on each line.")] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What to bundle a build for.", autocompletion=complete_target),
    ] = None,
    vendor: Annotated[
        bool, typer.Option("--vendor", help="Send the wheels too, for a board without a network.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of the board, 3.11 for example; one of the target's.")
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="Have the board's systemd run the model for whoever connects.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Say what is deployed.")] = False,
    back: Annotated[bool, typer.Option("--rollback", help="Go back to the release before the current one.")] = False,
    remove: Annotated[
        bool, typer.Option("--prune", help="Remove old releases; of every name, if none is given.")
    ] = False,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="How many releases --prune keeps.")] = 3,
    ssh_config: SshConfig = None,
    as_json: Json = False,
) -> None:
    """Bring a build to a board over ssh, prove it there, then switch to it.

    The model becomes current only after it gave its golden outputs on the board, bit for bit; a deploy that fails or
    is interrupted leaves what ran before. Exits with 1 if something failed on a board, 2 if nothing was begun.
    """
    from emb.cli.output import print_json, stderr, stdout
    from emb.pipeline import deploy as pipeline

    where: dict[str, Any] = {"hosts": _hosts(host, hosts), "ssh_config": ssh_config}

    def tell(at: str, words: str) -> None:
        stderr().print(f"{at}: {words}", highlight=False, markup=False, soft_wrap=True)

    actions = [flag for flag, is_set in (("--list", show), ("--rollback", back), ("--prune", remove)) if is_set]
    _require_one_action(actions, source)
    if show:
        outcomes, lines = pipeline.releases(tell=tell, **where), _listed
    elif back:
        outcomes, lines = pipeline.rollback(str(source), tell=tell, **where), _switched
    elif remove:
        outcomes, lines = pipeline.prune(source, keep=keep, tell=tell, **where), _removed
    else:
        outcomes, lines = (
            pipeline.deploy(
                str(source), target=target, vendor=vendor, python=python, service=service, tell=tell, **where
            ),
            _switched,
        )
    _raise_if_alone(outcomes)
    if as_json:
        print_json({"hosts": [outcome.to_json() for outcome in outcomes]})
    for outcome in outcomes:
        if outcome.error is not None:
            stderr().print(f"error: {outcome.error}", style="red", highlight=False, markup=False, soft_wrap=True)
        elif not as_json:
            for line in lines(outcome):
                stdout().print(line, highlight=False, markup=False, soft_wrap=True)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _hosts(host: str | None, file: Path | None) -> tuple[str, ...]:
    from emb.deploy.ssh import parse_hosts
    from emb.errors import SpecError

    if (host is None) == (file is None):
        raise SpecError(
            "give --host or --hosts, one of them",
            why="both were given" if host else "neither was given",
            fix="--host pi@raspberrypi.local, or --hosts FILE with one host on each line",
        )
    if host is not None:
        return (host,)
    assert file is not None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot read {file}", why=reason.lower(), fix="check the path") from error
    return parse_hosts(text, source=str(file))


def _require_one_action(actions: list[str], source: str | None) -> None:
    from emb.errors import SpecError

    if len(actions) > 1:
        raise SpecError(f"{' and '.join(actions)} exclude each other", fix="give one of them")
    if source is None and actions not in (["--list"], ["--prune"]):
        raise SpecError("nothing to deploy", fix="give a build, a bundle, or with --rollback a name on the board")
    if source is not None and actions == ["--list"]:
        raise SpecError("--list takes no build: it shows all that is on the board", fix="leave it out")


def _raise_if_alone(outcomes: tuple[Outcome, ...]) -> None:
    """The one host that was asked for fails like any command does."""
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error


def _switched(outcome: Outcome) -> list[str]:
    answer = outcome.answer
    replaced = f", instead of {answer['replaced'][:12]}" if answer["replaced"] else ""
    return [f"{outcome.host}: {answer['name']} {answer['digest'][:12]} is current{replaced}; its self-test passed"]


def _removed(outcome: Outcome) -> list[str]:
    removed = outcome.answer["removed"]
    return [f"{outcome.host}: removed {entry['name']} {entry['digest'][:12]}" for entry in removed] or [
        f"{outcome.host}: nothing to remove"
    ]


def _listed(outcome: Outcome) -> list[str]:
    lines = []
    for release in outcome.answer["releases"]:
        mark = "current" if release["current"] else ""
        lines.append(
            f"{outcome.host}: {release['name']}  {release['digest'][:12]}  {release['bytes']:>12,} bytes  "
            f"{release['model']}  {mark}".rstrip()
        )
    return lines or [f"{outcome.host}: nothing is deployed"]
