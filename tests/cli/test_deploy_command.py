"""What `emb deploy` and `emb bench --host` refuse before any board is asked; boards themselves: tests/board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def emb(home: Path, *arguments: str, expect: int) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "EMB_SSH_CONFIG"}
    program = "import sys; from emb.cli import main; main()"
    call = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=home, env=environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("lenet-int8",),
            "error: give --host or --hosts, one of them\n  why: neither was given\n"
            "  fix: --host pi@raspberrypi.local, or --hosts FILE with one host on each line\n",
        ),
        (
            ("lenet-int8", "--host", "a", "--hosts", "b"),
            "error: give --host or --hosts, one of them\n  why: both were given\n"
            "  fix: --host pi@raspberrypi.local, or --hosts FILE with one host on each line\n",
        ),
        (
            ("--hosts", "nowhere", "--list"),
            "error: cannot read nowhere\n  why: no such file or directory\n  fix: check the path\n",
        ),
        (
            ("--host", "a", "--list", "--prune"),
            "error: --list and --prune exclude each other\n  fix: give one of them\n",
        ),
        (
            ("--host", "a"),
            "error: nothing to deploy\n  fix: give a build, a bundle, or with --rollback a name on the board\n",
        ),
        (
            ("lenet-int8", "--host", "a", "--list"),
            "error: --list takes no build: it shows all that is on the board\n  fix: leave it out\n",
        ),
        (
            ("lenet-int8", "--host", "a", "--target", "rpi4"),
            "error: there is no build and no bundle lenet-int8\n"
            "  fix: give a directory that emb build or emb bundle has made\n",
        ),
        (
            ("../lenet", "--rollback", "--host", "a"),
            "error: '../lenet' is no name of a release\n  fix: emb deploy --list shows the names\n",
        ),
        (
            ("--list", "--host", "a", "--ssh-config", "nowhere"),
            "error: there is no ssh configuration nowhere\n  fix: check --ssh-config or EMB_SSH_CONFIG\n",
        ),
        (
            ("--list", "--host", "a b"),
            "error: 'a b' is no host\n"
            "  fix: give an alias of your ssh configuration, user@name, or ssh://user@name:port\n",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: tuple[str, ...], message: str):
    assert emb(tmp_path, "deploy", *arguments, expect=2).stderr == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--seconds", "3"),
            "error: --seconds and --images are for a board\n  fix: add --host, or leave them out\n",
        ),
        (
            ("--host", "a", "--threads", "2"),
            "error: --threads does not go with --host\n"
            "  why: a board runs what the bundle says, with one thread and with all\n  fix: leave one of them out\n",
        ),
    ],
)
def test_what_bench_refuses(tmp_path: Path, arguments: tuple[str, ...], message: str):
    assert emb(tmp_path, "bench", "x", *arguments, expect=2).stderr == message


def test_a_board_that_is_not_there(tmp_path: Path):
    done = emb(tmp_path, "deploy", "--list", "--host", "nobody.invalid", "--json", expect=2)
    error = json.loads(done.stdout)["error"]
    assert error["what"] == "cannot reach nobody.invalid by ssh"
    assert error["fix"] == "check the name, or give the board's address"


def test_each_of_several_boards_that_are_not_there(tmp_path: Path):
    (tmp_path / "hosts").write_text("nobody.invalid\npi@nowhere.invalid # upstairs\n")
    done = emb(tmp_path, "deploy", "--list", "--hosts", "hosts", "--json", expect=1)
    hosts = json.loads(done.stdout)["hosts"]
    assert [entry["host"] for entry in hosts] == ["nobody.invalid", "pi@nowhere.invalid"]
    assert all(entry["error"]["what"].startswith("cannot reach") for entry in hosts)
