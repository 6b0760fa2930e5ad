"""The program that runs on boards, as a process of this machine with a home of its own; the same over ssh: tests/board.

The bundle here has no runtime: its run.py passes its self-test if its model says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emb.deploy import remote
from emb.deploy.ssh import Session
from emb.errors import BoardError, DeployError

pytestmark = pytest.mark.slow  # a minute for all of them: each deploy makes an environment

RUN = b"""import pathlib, sys
model = (pathlib.Path(__file__).parent / "model.tflite").read_text()
sys.exit("wrong outputs" if model.startswith("wrong") else 0) if sys.argv[1] == "self-test" else print(model)
"""
PADDING = bytes(range(256)) * 4096


class Here:
    """This machine as a board. home: of whom emb deploys as."""

    host = "here"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def open(self, arguments: list[str]) -> Iterator[Session]:
        environment = {**os.environ, "HOME": str(self.home)}
        with (
            (self.home / "stderr").open("w+b") as stderr,
            subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, env=environment
            ) as process,
        ):
            self.processes.append(process)
            assert process.stdin is not None
            assert process.stdout is not None
            yield Session(host=self.host, stdin=process.stdin, stdout=process.stdout, _process=process, _stderr=stderr)

    def ask(self, request: dict[str, Any], files: dict[str, bytes] | None = None, tell: Any = None) -> Any:
        return remote.ask(
            self,
            python=sys.executable,
            request=request,
            tell=tell or (lambda words: None),
            contents=lambda: iter((files or {}).items()),
        )

    def deploy(self, files: dict[str, bytes], **changes: Any) -> Any:
        return self.ask(request_of(files, **changes), files)

    @property
    def answer(self) -> str:
        """Of whatever is current."""
        call = [self.home / "emb/net/run", "predict"]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def leftovers(self) -> list[Path]:
        return [path for path in (self.home / "emb").rglob("*") if path.name.endswith((".partial", ".new"))]


def files_of(model: str) -> dict[str, bytes]:
    padding = hashlib.sha256(model.encode()).digest() + PADDING
    return {"model.tflite": model.encode(), "padding.bin": padding, "requirements.txt": b"# none\n", "run.py": RUN}


def request_of(files: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }
    text = json.dumps({"model": "model.tflite", "files": entries})
    return {
        "command": "deploy",
        "name": "net",
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "bundle_json": text,
        "environment": {"key": "k", "requirements": "requirements.txt", "wheels": ".", "bytes": 1000},
        "service": False,
        **changes,
    }


@pytest.fixture(scope="module")
def module_board(tmp_path_factory: pytest.TempPathFactory) -> Here:
    """With its environment, which takes longest."""
    here = Here(tmp_path_factory.mktemp("home"))
    here.deploy(files_of("model 0"))
    return here


@pytest.fixture
def here(module_board: Here) -> Here:
    module_board.deploy(files_of("model 0"))
    assert module_board.answer == "model 0"
    return module_board


def test_a_deploy_a_second_one_and_the_way_back(here: Here):
    first = request_of(files_of("model 0"))["digest"]
    answer = here.deploy(files_of("model 1"))
    assert answer == {"digest": request_of(files_of("model 1"))["digest"], "replaced": first}
    assert here.answer == "model 1"
    back = here.ask({"command": "rollback", "name": "net"})
    assert back == {"name": "net", "digest": first, "replaced": answer["digest"]}
    assert here.answer == "model 0"
    assert here.leftovers == []


def test_only_new_files_are_asked_for(here: Here):
    told: list[str] = []
    files = {**files_of("model 0"), "model.tflite": b"model 2"}
    here.ask(request_of(files), files, told.append)
    assert told[0] == "copying 1 files"
    assert here.answer == "model 2"


@pytest.mark.parametrize("name", ["model.tflite", "padding.bin", "run.py"])
def test_a_file_that_is_not_what_the_bundle_lists(here: Here, name: str):
    wanted = files_of("model 3")
    sent = {**wanted, name: bytes([wanted[name][0] ^ 1]) + wanted[name][1:]}
    if name == "run.py":
        wanted = {**wanted, name: RUN + b"#"}
        sent = {**wanted, name: RUN + b"!"}
    with pytest.raises(DeployError) as caught:
        here.ask(request_of(wanted), sent)
    assert str(caught.value) == (
        f"here: {name} is not what was bundled\n  why: its sha256 differs from the one in bundle.json\n"
        "  fix: deploy again; if it happens again, test the board's card"
    )
    assert here.answer == "model 0"
    assert here.leftovers == []


def test_a_failed_self_test(here: Here):
    with pytest.raises(DeployError) as caught:
        here.deploy(files_of("wrong"))
    assert str(caught.value) == (
        "here: the self-test failed on the board; what was current still is\n  why: wrong outputs\n"
        "  fix: bundle the build again; a board that computes other bits cannot run it"
    )
    assert here.answer == "model 0"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_paths_that_lead_out(here: Here, name: str):
    files = {**files_of("model 4"), name: b"x"}
    with pytest.raises(DeployError) as caught:
        here.deploy(files)
    assert caught.value.what == f"here: {name!r} leads out of the bundle"
    assert here.answer == "model 0"


@pytest.mark.parametrize("name", ["../x", "venvs", "", "a b", "$(x)"])
def test_names_that_are_none(here: Here, name: str):
    if name:
        with pytest.raises(BoardError) as caught:
            here.deploy(files_of("model 4"), name=name)
        assert caught.value.what == f"here: {name!r} cannot be the name of a release"


def test_no_room(here: Here):
    request = request_of(files_of("model 5"))
    request["environment"] |= {"key": "another", "bytes": 10**18}
    with pytest.raises(BoardError) as caught:
        here.ask(request, files_of("model 5"))
    assert caught.value.what.startswith("here: the board has no room: 1,000,000,")
    assert caught.value.why == "for the copy and the runtime's environment, with 16 MiB to spare"
    assert caught.value.fix == "emb deploy --prune removes old releases"


def test_prune_keeps_what_is_needed(here: Here):
    for number in range(6, 10):
        here.deploy(files_of(f"model {number}"))
    here.ask({"command": "prune", "name": "net", "keep": 1})
    releases = here.ask({"command": "list", "name": ""})["releases"]
    digests = [request_of(files_of(f"model {number}"))["digest"] for number in (8, 9)]
    assert [release["digest"] for release in releases] == digests
    assert [release["current"] for release in releases] == [False, True]
    here.ask({"command": "rollback", "name": "net"})
    with pytest.raises(BoardError) as caught:
        here.ask({"command": "rollback", "name": "net"})
    assert caught.value.what == "here: there is no release of net to go back to"
    assert here.answer == "model 8"


def test_an_environment_without_its_mark_is_made_again(here: Here):
    (here.home / "emb/venvs/k/complete").unlink()
    here.deploy(files_of("model 0"))
    assert (here.home / "emb/venvs/k/complete").is_file()
    assert here.answer == "model 0"


def test_nothing_is_writable_for_others(here: Here):
    paths = [path for path in (here.home / "emb").rglob("*") if not path.is_symlink()]
    assert [path for path in paths if path.stat().st_mode & 0o022] == []


@pytest.mark.parametrize("point", range(20))
@pytest.mark.parametrize("who", ["the board", "the other side"])
def test_a_deploy_broken_off(here: Here, who: str, point: int):
    """Killed as by a loss of power, or left alone: what was current answers, and the next deploy succeeds."""
    before = here.answer
    files = files_of(f"{who} {point}")
    request = json.dumps(request_of(files)).encode() + b"\n"
    program = remote._program()
    with here.open([sys.executable, "-I", "-c", remote._start(len(program))]) as session:
        session.stdin.write(program + request)
        process = here.processes[-1]
        talk = remote._Talk(session)
        for message in talk.messages():
            if "send" not in message:
                continue
            stream = b"files\n" + b"".join(name.encode() + b"\n" + files[name] for name in message["send"])
            if point < 12:
                talk.send(stream[: len(stream) * point // 12])
            else:
                talk.send(stream)
                time.sleep(0.02 * (point - 12))
            break
        process.kill() if who == "the board" else session.stdin.close()
        process.wait(timeout=60)
    assert here.answer == before
    assert here.deploy(files)["digest"] == request_of(files)["digest"]
    assert here.answer == f"{who} {point}"
    assert here.leftovers == []


def test_the_lock_of_a_killed_deploy_holds_nobody(here: Here):
    program = remote._program()
    with here.open([sys.executable, "-I", "-c", remote._start(len(program))]) as session:
        session.stdin.write(program + json.dumps(request_of(files_of("model k"))).encode() + b"\n")
        assert session.readable(60)
        told: list[str] = []
        waiting = subprocess.Popen(
            [sys.executable, "-I", "-c", remote._start(len(program))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HOME": str(here.home)},
            bufsize=0,
        )
        with waiting:
            assert waiting.stdin is not None
            assert waiting.stdout is not None
            waiting.stdin.write(program + json.dumps(request_of(files_of("model l"))).encode() + b"\n")
            told.append(waiting.stdout.readline().decode())
            here.processes[-1].kill()
            told.append(waiting.stdout.readline().decode())
            waiting.kill()
    assert "waiting for another deploy on this board" in told[0]
    assert json.loads(told[1].removeprefix("emb: "))["send"]
    assert here.answer == "model 0"
