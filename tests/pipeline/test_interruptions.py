"""A build that is killed or interrupted completes when it is run again; two at once both succeed."""

from __future__ import annotations

import json
import random
import signal
import subprocess

import pytest

pytestmark = pytest.mark.slow

BUILD = ("build", "lenet", "--quantize", "int8", "--epochs", "8", "--json")


@pytest.fixture
def fresh(emb, tmp_path):
    """The command line with an empty cache."""
    return type(emb)(tmp_path)


def start(emb):
    return subprocess.Popen(
        emb.command(*BUILD),
        cwd=emb.home,
        env=emb.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell inherits that SIGINT is ignored, and Python then leaves it so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def whole_or_absent(emb) -> None:
    """No half-written build is ever to be seen."""
    folder = emb.home / "builds" / "lenet-int8"
    if folder.exists():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert all((folder / name).is_file() for name in manifest["files"])


def test_kill_at_random_moments(fresh):
    moments = random.Random(0)
    for _ in range(4):
        process = start(fresh)
        try:
            process.wait(timeout=moments.uniform(0.5, 12))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        whole_or_absent(fresh)
    report = fresh.json(*BUILD[:-1])
    assert report["errors"] == []
    whole_or_absent(fresh)
    assert fresh.json(*BUILD[:-1])["cached"]


@pytest.mark.long
def test_ctrl_c_exits_130_and_training_resumes(fresh):
    process = start(fresh)
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    told = fresh.run(*BUILD).stderr
    assert "epoch 1/" not in told
    assert "epoch 8/8" in told


@pytest.mark.long
def test_two_builds_at_once(fresh):
    both = [start(fresh), start(fresh)]
    reports = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    hashes = [{row["file"]: row["sha256"] for row in report["rows"]} for report in reports]
    assert hashes[0] == hashes[1]
    whole_or_absent(fresh)
