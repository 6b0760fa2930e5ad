"""Training on JAX in a process of its own, on one device and on two, and what goes wrong there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from emb.errors import SpecError
from emb.pipeline.engine import Engine, choose_engine, keras_on_tensorflow

TWO_DEVICES = "--xla_force_host_platform_device_count=2"
TRAIN = ("train", "lenet", "--epochs", "3", "--backend", "jax")


@pytest.fixture
def backend_of_environment(monkeypatch):
    """Sets KERAS_BACKEND, or takes it away (None)."""

    def set_backend(name: str | None) -> None:
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if name is not None:
            monkeypatch.setenv("KERAS_BACKEND", name)

    return set_backend


@pytest.mark.parametrize(
    ("option", "environment", "chosen"),
    [
        (None, None, "tensorflow"),
        (None, "tensorflow", "tensorflow"),
        (None, "jax", "jax"),
        ("tensorflow", "jax", "tensorflow"),
        ("jax", "tensorflow", "jax"),
        ("jax", "torch", "jax"),
    ],
)
def test_the_option_wins_over_the_environment(backend_of_environment, option, environment, chosen):
    backend_of_environment(environment)
    assert choose_engine(backend=option, devices=None) == Engine(backend=chosen, devices=1)


def test_an_unknown_backend(backend_of_environment):
    backend_of_environment("torch")
    with pytest.raises(SpecError) as caught:
        choose_engine(backend=None, devices=None)
    assert str(caught.value).splitlines()[:2] == [
        "emb does not train on the backend 'torch'",
        "  why: the environment says so: KERAS_BACKEND",
    ]
    with pytest.raises(SpecError) as caught:
        choose_engine(backend="jaxx", devices=None)
    assert caught.value.why == ""
    assert caught.value.fix == "did you mean 'jax'? known: jax, tensorflow"


@pytest.mark.parametrize(("given", "devices"), [("1", 1), ("4", 4), (2, 2), ("all", "all"), (None, 1)])
def test_devices_as_text_and_as_number(given, devices):
    assert choose_engine(backend="jax", devices=given).devices == devices


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", 0])
def test_devices_that_are_none(given):
    with pytest.raises(SpecError) as caught:
        choose_engine(backend="jax", devices=given)
    assert str(caught.value) == f"there are no {given!r} devices\n  fix: give a number from 1 on, or all"


@pytest.mark.parametrize("given", ["2", "all"])
def test_several_devices_on_tensorflow(given):
    with pytest.raises(SpecError, match=f"--devices {given} needs the JAX backend"):
        choose_engine(backend="tensorflow", devices=given)


def test_the_environment_is_given_back(backend_of_environment):
    for before in ("jax", None):
        backend_of_environment(before)
        with keras_on_tensorflow():
            assert os.environ["KERAS_BACKEND"] == "tensorflow"
        assert os.environ.get("KERAS_BACKEND") == before


@pytest.fixture(scope="module")
def trained(emb):
    """The report of a short training of lenet on JAX."""
    return emb.json(*TRAIN, "--output", "one")


@pytest.mark.slow
def test_jax_trains_and_tensorflow_exports(emb, trained):
    assert (trained["backend"], trained["devices"], trained["cached"]) == ("jax", 1, False)
    report = emb.json("build", "lenet", "--epochs", "3", "--quantize", "int8", "--backend", "jax")
    assert report["errors"] == []
    agreements = [row["agreement"] for row in report["rows"] if row["source"] == "measured"]
    assert min(agreements) > 0.95
    manifest = json.loads((emb.home / report["directory"] / "manifest.json").read_text())
    model = manifest["stages"]["model"]
    assert model["parameters"]["backend"] == "jax"
    assert {"jax", "jaxlib"} <= set(model["tools"])
    # The training of `emb train` was found, not done again.
    ours = json.loads((emb.home / "one" / "manifest.json").read_text())
    assert model["files"]["model.keras"] == ours["files"]["model.keras"]


@pytest.mark.slow
@pytest.mark.long
def test_the_backend_is_part_of_the_key(emb, trained):
    told = emb.run("train", "lenet", "--epochs", "3", "--output", "other", KERAS_BACKEND="tensorflow").stderr
    assert "epoch 1/3" in told
    told = emb.run("train", "lenet", "--epochs", "3", "--output", "again", KERAS_BACKEND="jax").stderr
    assert "epoch" not in told


@pytest.mark.slow
@pytest.mark.long
def test_two_devices_come_close_to_one(emb, trained):
    report = json.loads(emb.run(*TRAIN, "--devices", "2", "--output", "two", "--json", XLA_FLAGS=TWO_DEVICES).stdout)
    assert report["devices"] == 2
    losses = [[epoch["loss"] for epoch in one["epochs"]] for one in (trained, report)]
    # Sums in another order, and nothing else.
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.01)
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("--devices", "3"), {"XLA_FLAGS": TWO_DEVICES}, "3 devices are wanted; JAX finds 2"),
        (
            ("--devices", "all", "--batch-size", "33"),
            {"XLA_FLAGS": TWO_DEVICES},
            "a batch of 33 images does not split evenly over 2 devices",
        ),
        pytest.param(("--set", "train.learning_rate=1e30"), {}, "the training diverged", marks=pytest.mark.long),
    ],
)
def test_what_is_wrong_in_the_worker_is_one_error_here(emb, arguments, environment, message):
    done = emb.run(*TRAIN, *arguments, "--output", "wrong", expect=2, **environment)
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert not (emb.home / "wrong").exists()


@pytest.mark.slow
def test_without_jax_there_is_one_error_with_the_fix(emb, tmp_path):
    _without_jax(tmp_path)
    done = emb.run(*TRAIN, "--output", "wrong", expect=2, PYTHONPATH=str(tmp_path))
    assert done.stderr.splitlines() == [
        "error: the JAX backend is not installed",
        "  fix: pip install 'emb[jax]', or train on TensorFlow: --backend tensorflow",
    ]


@pytest.mark.slow
@pytest.mark.long
def test_a_training_that_is_killed_is_one_error(emb):
    process, worker = _begun(emb, "11")
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the training on jax was killed (SIGKILL)" in told
    assert "fix: run it again: it continues after its last finished epoch" in told
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_the_worker_ends_with_its_parent_and_the_training_resumes(emb, number):
    seed = str(20 + number)
    process, worker = _begun(emb, seed)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in told
    deadline = time.monotonic() + 60
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)
    resumed = emb.run(*TRAIN[:2], "--epochs", "12", "--backend", "jax", "--seed", seed, "--output", "resumed").stderr
    assert "epoch 1/12" not in resumed
    assert "epoch 12/12" in resumed


def _begun(emb, seed: str) -> tuple[subprocess.Popen[str], int]:
    """A training that has finished its second epoch, and its worker's process id."""
    process = subprocess.Popen(
        emb.command(*TRAIN[:2], "--epochs", "12", "--backend", "jax", "--seed", seed, "--output", "begun"),
        cwd=emb.home,
        env=emb.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            break
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return process, int(worker)


def _alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def _without_jax(folder: Path) -> None:
    """A sitecustomize with which JAX counts as not installed."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
