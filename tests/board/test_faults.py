"""Whatever breaks a deploy off: the release before still gives its answers, bit for bit, and the next deploy succeeds.

Each fault strikes at many points of a deploy: after so many bytes on the way to the board, or a while after a step
began. Each deploy brings another model and 4 MB that the board has never seen, and the next one is built on its ruins.
EMB_BOARD_POINTS takes fewer points, to try the tests themselves.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cable import Cable
from conftest import NAME, Bundle, Emb, state_of
from machine import HOST, Machine

POINTS = int(os.environ.get("EMB_BOARD_POINTS", "20"))
PADDING_BYTES = 4_000_000
# The look and the program that runs on the board come before the files, of which the padding alone is so many.
LEAST_BYTES, MOST_BYTES = 2_000, PADDING_BYTES
STEPS = ("copying", "checking the copy", "self-test")
points = pytest.mark.parametrize("point", range(POINTS))


class Case:
    """One fault: a release that is current, another one that is on its way, and what must hold afterwards."""

    def __init__(self, emb: Emb, through: Emb, board: Machine, cable: Cable, bundles: tuple[Bundle, Bundle], tmp: Path):
        self.emb, self.through, self.board, self.cable = emb, through, board, cable
        self.before, answers = state_of(board, bundles[0])
        if answers not in [bundle.answers for bundle in bundles]:
            emb.run("deploy", str(bundles[0].path), "--host", HOST)
            self.before, answers = state_of(board, bundles[0])
        # What is current may be a variant of either.
        self.old = next(bundle for bundle in bundles if bundle.answers == answers)
        self.new = next(bundle for bundle in bundles if bundle.answers != answers)
        padding = random.Random(self.before).randbytes(PADDING_BYTES)
        self.wanted = self.new.variant(tmp / "wanted", files={"padding.bin": padding})
        self.struck: threading.Event | None = None

    def deploy(self) -> None:
        """Begin the deploy that is to be broken off."""
        self.process = self.through.popen("deploy", str(self.wanted.path), "--host", HOST)
        self.steps: dict[str, threading.Event] = {step: threading.Event() for step in STEPS}
        self.words: list[str] = []

        def listen() -> None:
            for line in self.process.stderr:
                self.words.append(line)
                for step, event in self.steps.items():
                    if step in line:
                        event.set()

        self._listener = threading.Thread(target=listen, daemon=True)
        self._listener.start()

    def strike(self, point: int, action: Callable[[], None]) -> None:
        """Deploy, and call `action` at one of `POINTS` points: two thirds in bytes, the rest after the copy."""
        self.struck = struck = threading.Event()

        def strike() -> None:
            struck.set()
            action()

        in_bytes = max(1, POINTS * 2 // 3)
        if point < in_bytes:
            share = point / max(1, in_bytes - 1)
            self.cable.act_at(int(LEAST_BYTES + share * (MOST_BYTES - LEAST_BYTES)), strike)
            self.deploy()
        else:
            self.deploy()
            late = point - in_bytes
            step = STEPS[1 + late % 2]
            while not self.steps[step].wait(0.05) and self.process.poll() is None:
                pass
            time.sleep(0.4 * (late // 2))
            strike()

    def wait(self) -> int:
        """Until emb has ended; its exit code. What was to strike has struck."""
        code = self.process.wait(timeout=600)
        self._listener.join(timeout=10)
        self.process.stdout.close()
        self.process.stderr.close()
        assert self.struck is None or self.struck.is_set()
        return code

    def old_still_answers(self) -> None:
        assert state_of(self.board, self.old) == (self.before, self.old.answers), "".join(self.words)

    def whichever_is_current_answers(self) -> None:
        """Where the switch itself may have been made when the fault came: one or the other, never half of each."""
        # Both models take the same images.
        now = state_of(self.board, self.old)
        assert now in ((self.before, self.old.answers), (self.wanted.digest, self.new.answers))

    def next_deploy_succeeds(self) -> None:
        self.cable.mend()
        self.emb.run("deploy", str(self.wanted.path), "--host", HOST)
        assert state_of(self.board, self.new) == (self.wanted.digest, self.new.answers)
        assert self.board.check("find emb -name '*.partial' -o -name '*.new'") == ""


@pytest.fixture
def case(
    emb: Emb,
    through_cable: Emb,
    board: Machine,
    cable: Cable,
    bundles: tuple[Bundle, Bundle],
    installed: None,
    tmp_path: Path,
) -> Case:
    cable.mend()
    return Case(emb, through_cable, board, cable, bundles, tmp_path)


@points
def test_emb_killed(case: Case, point: int):
    case.strike(point, lambda: case.process.send_signal(signal.SIGKILL))
    assert case.wait() in (-signal.SIGKILL, 0)
    case.whichever_is_current_answers()
    case.next_deploy_succeeds()


@points
def test_network_cut(case: Case, point: int):
    """Every fourth time the cable is pulled, which nobody is told of: both ends give up after half a minute."""
    case.strike(point, case.cable.pull if point % 4 == 3 else case.cable.cut)
    assert case.wait() in (0, 1, 2)
    case.cable.mend()
    case.whichever_is_current_answers()
    case.next_deploy_succeeds()


@points
def test_disk_full(case: Case, point: int):
    """All that is free is taken while the deploy runs; the release before answers on the full disk."""
    fill = "fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - 4096)) filler; cat /dev/zero >> filler"
    case.strike(point, lambda: case.board.ssh(fill))
    try:
        case.wait()
        case.whichever_is_current_answers()
    finally:
        case.board.check("rm filler")
    case.next_deploy_succeeds()


@points
def test_board_rebooted(case: Case, point: int):
    boot = case.board.boot_id()
    case.strike(point, lambda: case.board.monitor("system_reset"))
    case.board.wait(other_than=boot)
    assert case.wait() in (0, 1, 2)
    case.whichever_is_current_answers()
    case.next_deploy_succeeds()


@points
def test_file_corrupted_on_the_way(case: Case, point: int):
    """A byte changes on the board, between the network and the check."""
    half = LEAST_BYTES + MOST_BYTES // 2
    at = half + point * (MOST_BYTES - half) // POINTS
    damage = f"printf X | dd of=$(echo emb/{NAME}/releases/*.partial/bundle/padding.bin) bs=1 seek={point} conv=notrunc"
    struck = []
    case.cable.act_at(at, lambda: struck.append(case.board.ssh(damage).returncode))
    case.deploy()
    assert case.wait() == 1
    assert struck == [0]
    assert "padding.bin is not what was bundled" in "".join(case.words)
    case.old_still_answers()
    case.next_deploy_succeeds()


@points
def test_clock_in_1970(case: Case, point: int):
    """A board without a battery. emb is killed there too, and the deploy after it is made in 1970 as well."""
    # Linux sets no clock back behind the time since it was booted.
    case.board.check(f"date -s @{86_400 * (1 + point)}", user="root")
    try:
        case.strike(point, lambda: case.process.send_signal(signal.SIGKILL))
        case.wait()
        case.whichever_is_current_answers()
        case.next_deploy_succeeds()
    finally:
        case.board.check(f"date -s @{int(time.time())}", user="root")


def test_a_new_environment_in_1970(case: Case):
    case.board.check("date -s @86400", user="root")
    try:
        _with_new_environment(case, "1970")
        case.next_deploy_succeeds()
    finally:
        case.board.check(f"date -s @{int(time.time())}", user="root")


def _with_new_environment(case: Case, remark: str) -> None:
    requirements = (case.new.path / "requirements.txt").read_bytes() + f"# {remark}\n".encode()
    case.wanted = case.new.variant(case.wanted.path.with_name("other"), files={"requirements.txt": requirements})


@pytest.mark.parametrize("fault", ["killed", "full", "rebooted"])
def test_broken_off_while_the_environment_is_made(case: Case, fault: str):
    _with_new_environment(case, fault)
    boot = case.board.boot_id()
    case.deploy()
    while not any("environment" in line for line in case.words) and case.process.poll() is None:
        time.sleep(0.1)
    time.sleep(10)
    if fault == "killed":
        case.process.kill()
    elif fault == "full":
        case.board.ssh("cat /dev/zero > filler")
    else:
        case.board.monitor("system_reset")
        case.board.wait(other_than=boot)
    case.wait()
    case.old_still_answers()
    case.board.check("rm -f filler")
    case.next_deploy_succeeds()


def refused(case: Case, wanted: Bundle, message: str, *, points: int = POINTS) -> None:
    """The board is looked at, and nothing is copied."""
    held = case.board.check("find emb | sort")
    for _ in range(points):
        done = case.emb.run("deploy", str(wanted.path), "--host", HOST, expect=2)
        assert message in done.stderr
        assert "copying" not in done.stderr
    assert case.board.check("find emb | sort") == held


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        (
            {"architecture": "x86_64"},
            f"error: {HOST} does not fit: it is aarch64\n  why: the bundle is for x86_64\n"
            "  fix: bundle for a target of its architecture: emb targets\n",
        ),
        (
            {"glibc": "2.99"},
            f"error: {HOST} does not fit: its glibc is 2.36\n  why: the runtime's wheels need 2.99 or newer\n"
            "  fix: upgrade the board's system, or bundle for another runtime\n",
        ),
        (
            {"python": ["3.13"]},
            f"error: {HOST} does not fit: its Python is 3.11.2\n  why: the bundle needs Python 3.13 of 64 bits\n"
            "  fix: install Python 3.13, or bundle for the board's: --python\n",
        ),
    ],
)
def test_a_bundle_that_the_board_does_not_fit(case: Case, tmp_path: Path, requires: dict[str, object], message: str):
    refused(case, case.new.variant(tmp_path / "unfit", requires=requires), message)
    case.old_still_answers()
    case.next_deploy_succeeds()


def test_no_python(case: Case):
    names = case.board.check("ls /usr/bin/python3 /usr/bin/python3.*", user="root").split()
    for name in names:
        case.board.check(f"mv {name} {name}.away", user="root")
    try:
        refused(
            case, case.wanted, f"error: {HOST} does not fit: it has no Python\n  why: the bundle needs Python 3.11\n"
        )
    finally:
        for name in names:
            case.board.check(f"mv {name}.away {name}", user="root")
    case.old_still_answers()
    case.next_deploy_succeeds()


def test_no_venv(case: Case):
    place = "/usr/lib/python3.11/ensurepip"
    case.board.check(f"mv {place} {place}.away", user="root")
    try:
        refused(
            case,
            case.wanted,
            f"error: {HOST} does not fit: its Python 3.11.2 cannot make a virtual environment\n",
            points=1,
        )
    finally:
        case.board.check(f"mv {place}.away {place}", user="root")
    case.old_still_answers()
    case.next_deploy_succeeds()


def test_no_room(case: Case):
    case.board.check("fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - 10000000)) filler")
    try:
        refused(case, case.wanted, f"error: {HOST}: the board has no room: ")
        case.old_still_answers()
    finally:
        case.board.check("rm filler")
    case.next_deploy_succeeds()
