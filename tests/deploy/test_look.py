"""What a board says of itself, and what a bundle misses there. The script runs on this machine's own shell."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from importlib import resources

import pytest

from emb.deploy.look import BoardFacts, BoardPython, any_python, chosen_python, parse
from emb.errors import BoardError
from emb.spec.bundle import Requirements

PI = BoardFacts(
    architecture="aarch64",
    bits=64,
    glibc="2.36",
    clock_s=1_750_000_000,
    home="/home/pi",
    free_bytes=10**9,
    model="Raspberry Pi 4 Model B",
    pythons=(BoardPython(path="/usr/bin/python3", version="3.11.2", bits=64, has_venv=True),),
)
WANTED = Requirements(architecture="aarch64", python=("3.11", "3.12"), glibc="2.34", free_bytes=10**8)


@pytest.mark.slow
def test_this_machine_says_what_it_is():
    script = resources.files("emb.deploy").joinpath("device/look.sh").read_bytes()
    said = subprocess.run(["sh", "-s"], input=script, capture_output=True, check=True)
    assert said.stderr == b""
    facts = parse(said.stdout.decode(), host="here")
    assert facts.architecture == platform.machine()
    assert facts.bits == (64 if sys.maxsize > 2**32 else 32)
    assert facts.glibc == platform.libc_ver()[1]
    assert facts.free_bytes
    assert facts.pythons


def test_what_is_no_answer():
    with pytest.raises(BoardError) as caught:
        parse("This account is not available.\n", host="board")
    assert str(caught.value) == "board does not say what it is\n  why: it answered 'This account is not available.\\n'"


def test_a_board_that_fits():
    assert chosen_python(PI, WANTED, host="pi").path == "/usr/bin/python3"
    anywhere = replace(WANTED, architecture="any", glibc="")
    assert chosen_python(replace(PI, architecture="riscv64", glibc=""), anywhere, host="pi").version == "3.11.2"


def test_the_newest_python_need_not_be_the_one():
    pythons = (BoardPython(path="/usr/bin/python3", version="3.14.1", bits=64, has_venv=True), *PI.pythons)
    assert chosen_python(replace(PI, pythons=pythons), WANTED, host="pi").version == "3.11.2"
    assert any_python(replace(PI, pythons=pythons), host="pi").version == "3.14.1"


@pytest.mark.parametrize(
    ("facts", "what", "why", "fix"),
    [
        (
            replace(PI, architecture="armv7l", bits=32),
            "it is armv7l; its programs have 32 bits",
            "the bundle is for aarch64; the runtimes have wheels for 64 bits alone, whatever the kernel is",
            "bundle for a target of its architecture: emb targets; install the 64-bit system",
        ),
        (
            replace(PI, bits=32),
            "its programs have 32 bits",
            "the runtimes have wheels for 64 bits alone, whatever the kernel is",
            "install the 64-bit system",
        ),
        (
            replace(PI, glibc="2.9"),
            "its glibc is 2.9",
            "the runtime's wheels need 2.34 or newer",
            "upgrade the board's system, or bundle for another runtime",
        ),
        (
            replace(PI, glibc=""),
            "its C library is not glibc",
            "the runtime's wheels need glibc 2.34",
            "use a system with glibc",
        ),
        (
            replace(PI, pythons=()),
            "it has no Python",
            "the bundle needs Python 3.11 or 3.12",
            "install Python 3.11 or 3.12",
        ),
        (
            replace(PI, pythons=(replace(PI.pythons[0], version="3.9.2"),)),
            "its Python is 3.9.2",
            "the bundle needs Python 3.11 or 3.12 of 64 bits",
            "install Python 3.11 or 3.12, or bundle for the board's: --python",
        ),
        (
            replace(PI, pythons=(replace(PI.pythons[0], has_venv=False),)),
            "its Python 3.11.2 cannot make a virtual environment",
            "the modules venv and ensurepip are not both there",
            "on Debian and Raspberry Pi OS: sudo apt-get install python3-venv",
        ),
    ],
)
def test_a_board_that_does_not_fit(facts: BoardFacts, what: str, why: str, fix: str):
    with pytest.raises(BoardError) as caught:
        chosen_python(facts, WANTED, host="pi")
    assert str(caught.value) == f"pi does not fit: {what}\n  why: {why}\n  fix: {fix}"
