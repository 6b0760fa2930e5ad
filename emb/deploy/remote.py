"""Talks to device/releases.py on a board: one request, its messages, its answer. Knows no bundle's content.

The program goes over with every request, so that what runs on the board always belongs to this emb.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any

from emb.deploy.ssh import Session, Ssh
from emb.errors import BoardError, DeployError, EmbError

# The board gives up after 30 s without a sign of life.
ALIVE_EVERY_S = 5
_PREFIX = b"emb: "
_SWITCH = "the switch"

_MODULES = ("talk", "files", "environment", "releases")
"""Of device/, each behind those that it imports."""
_LOADER = """
import json, os, sys, types
parts, left = [], LENGTH
while left:
    parts.append(os.read(0, left))
    left = left - len(parts[-1]) if parts[-1] else sys.exit(3)
for name, source in json.loads(b"".join(parts)).items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
module.main()
"""

Tell = Callable[[str], None]
Contents = Callable[[], Iterator[tuple[str, bytes]]]


def _nothing() -> Iterator[tuple[str, bytes]]:
    return iter(())


def ask(ssh: Ssh, *, python: str, request: Mapping[str, Any], tell: Tell, contents: Contents = _nothing) -> Any:
    """Have the board do what `request` says; its answer.

    python: path of an interpreter on the board.  tell: gets the steps as they begin, and notes.
    contents: (name, bytes) of every file that the board may ask for.
    Raises BoardError for what the board refused to begin, DeployError for what failed there.
    """
    program = _program()
    with ssh.open([python, "-I", "-c", _start(len(program))]) as session:
        talk = _Talk(session)
        talk.send(program + json.dumps(request).encode() + b"\n")
        step = "the first look"
        for message in talk.messages():
            if "step" in message:
                step = message["step"]
                tell(step)
            elif "note" in message:
                tell(message["note"])
            elif "send" in message:
                step = f"copying {len(message['send'])} files"
                tell(step)
                talk.send(b"files\n")
                for name, content in contents():
                    if name in message["send"]:
                        talk.send(name.encode() + b"\n")
                        talk.send(content)
            elif "ready" in message:
                step = _SWITCH
                talk.send(b"go\n")
            elif "done" in message:
                return message["done"]
            elif "error" in message:
                raise _refusal(ssh.host, message["error"])
        raise _lost(session, step)


def _program() -> bytes:
    """The modules for the board, as one JSON object {name: source}."""
    folder = resources.files("emb.deploy").joinpath("device")
    return json.dumps({name: folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}).encode()


def _start(length: int) -> str:
    """What the board's Python gets as an argument. It reads `length` bytes of modules, and no byte of what follows."""
    return _LOADER.replace("LENGTH", str(length))


class _Talk:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_closed = False

    def send(self, data: bytes) -> None:
        """Once the board has closed its end, nothing more is sent: its last message says why."""
        view = memoryview(data)
        try:
            while view and not self._is_closed:
                view = view[self._session.stdin.write(view) :]
        except BrokenPipeError:
            self._is_closed = True

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the board says until it ends. Meanwhile it is told that we are still there."""
        rest = b""
        while True:
            while b"\n" not in rest:
                while not self._session.readable(ALIVE_EVERY_S):
                    self.send(b"alive\n")
                data = self._session.read()
                if not data:
                    return
                rest += data
            line, rest = rest.split(b"\n", 1)
            if line.startswith(_PREFIX):
                yield json.loads(line.removeprefix(_PREFIX))


def _refusal(host: str, error: Mapping[str, Any]) -> EmbError:
    kind = BoardError if error["refused"] else DeployError
    return kind(f"{host}: {error['what']}", why=error["why"], fix=error["fix"])


def _lost(session: Session, step: str) -> DeployError:
    if step == _SWITCH:
        fix = "emb deploy --list says whether it was made"
    else:
        fix = "deploy again; what was current before still is"
    try:
        code = session.finish()
    except BoardError as error:
        return DeployError(f"the connection to {session.host} was lost during {step}", why=error.why, fix=fix)
    return DeployError(f"{session.host} stopped during {step}", why=session.words() or f"exit code {code}", fix=fix)
