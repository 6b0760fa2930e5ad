"""Hosts, the ssh command line, and what ssh's own failures become. No connection is made here: see tests/board."""

from __future__ import annotations

import shlex

import pytest

from emb.deploy.ssh import Ssh, failure_of, parse_hosts, require_host
from emb.errors import SpecError


@pytest.mark.parametrize(
    "host",
    [
        "raspberrypi.local",
        "pi@raspberrypi.local",
        "pi@192.168.1.20",
        "fe80::1%eth0",
        "pi@fe80::1%eth0",
        "ssh://pi@board:2222",
        "ssh://pi@[fe80::1]:22",
        "my_alias",
    ],
)
def test_hosts(host: str):
    require_host(host)
    assert Ssh(host=host).command(["true"])[-3:-1] == ["--", host]


@pytest.mark.parametrize(
    "host",
    ["", "-v", "a b", "a;b", "$(a)", "a`b`", "a\nb", "a\n", "pi@-oProxyCommand=x", "ssh://a/b", "a'b", "@a", "a@"],
)
def test_what_is_no_host(host: str):
    with pytest.raises(SpecError) as caught:
        Ssh(host=host)
    assert str(caught.value) == (
        f"{host!r} is no host\n  fix: give an alias of your ssh configuration, user@name, or ssh://user@name:port"
    )


def test_nothing_can_accept_a_host_key_or_ask_for_a_password():
    command = Ssh(host="pi@board").command(["run", "a b", "$(c)"])
    assert not any("StrictHostKeyChecking" in word or "UserKnownHostsFile" in word for word in command)
    assert "BatchMode=yes" in command
    # The words of the program reach it as they are.
    assert shlex.split(command[-1])[-3:] == ["run", "a b", "$(c)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "No ED25519 host key is known for board and you have requested strict checking.\n"
            "Host key verification failed.",
            "board is not trusted: its host key is not known\n  why: Host key verification failed.\n"
            "  fix: compare its fingerprint, then connect once by hand: ssh board",
        ),
        (
            "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@\nHost key verification failed.",
            "board is not trusted: its host key has changed\n  why: Host key verification failed.\n"
            "  fix: compare its fingerprint, then ssh-keygen -R board",
        ),
        (
            "pi@board: Permission denied (publickey).",
            "cannot reach board by ssh\n  why: pi@board: Permission denied (publickey).\n"
            "  fix: emb asks for no password; give it a key: ssh-copy-id board",
        ),
        (
            "ssh: Could not resolve hostname board: Name or service not known",
            "cannot reach board by ssh\n  why: ssh: Could not resolve hostname board: Name or service not known\n"
            "  fix: check the name, or give the board's address",
        ),
        (
            "ssh: connect to host board port 22: Connection refused",
            "cannot reach board by ssh\n  why: ssh: connect to host board port 22: Connection refused\n"
            "  fix: check that the board is on and in reach: ssh board",
        ),
    ],
)
def test_why_ssh_failed(words: str, message: str):
    assert str(failure_of("board", words)) == message


def test_a_file_of_hosts():
    text = "# the kitchen\npi@one\n\n  two.local   # upstairs\n"
    assert parse_hosts(text, source="hosts") == ("pi@one", "two.local")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# none\n", "hosts names no host\n  fix: write one host on each line"),
        (
            "one\n-v\n",
            "hosts, line 2: '-v' is no host\n"
            "  fix: give an alias of your ssh configuration, user@name, or ssh://user@name:port",
        ),
        ("one\ntwo\none\n", "hosts, line 3: one stands there twice\n  fix: remove one of the lines"),
    ],
)
def test_a_wrong_file_of_hosts(text: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_hosts(text, source="hosts")
    assert str(caught.value) == message
