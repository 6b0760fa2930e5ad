"""A deployed release's run.py as a function: the channel through which a board is measured. Knows no measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from emb.deploy.exchange import exchange
from emb.deploy.ssh import Ssh
from emb.errors import BoardError, RuntimeFailure

_NOT_FOUND = (126, 127)


def channel_to(ssh: Ssh, name: str) -> Callable[..., bytes]:
    """A Channel of emb.pipeline.bench_on_board to the current release of `name`, a safe name, on a board."""

    def channel(arguments: Sequence[str], stdin: Iterable[bytes] = ()) -> bytes:
        call = ["sh", "-c", 'exec "$HOME/emb/$0/run" "$@"', name, *arguments]
        with ssh.open(call) as session:
            written = exchange(session.stdin, session.stdout, stdin)
            code = session.finish()
            words = session.words()
        if code in _NOT_FOUND:
            raise BoardError(
                f"no release of {name} is on {ssh.host}", why=words, fix="bring it there first: emb deploy"
            )
        if code:
            raise RuntimeFailure(
                f"run.py {arguments[0]} failed on {ssh.host}",
                why=words.removeprefix("error: ") or f"exit code {code}",
                fix="prove the release there: emb/NAME/run self-test",
            )
        return written

    return channel
