"""Accuracy, agreement, latency and the description of the machine as values."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emb.bench import agreement, describe_machine, machine_digest, top1, wilson
from emb.bench import machine as machine_module
from emb.bench.machine import _CPU_FIELDS, _first_field
from emb.errors import ModelError
from emb.spec.measurement import Accuracy, Memory

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.1], [-1.0, -3.0, -2.0], [0.0, 0.0, 0.0]], np.float32)


def test_top1_counts_and_ties_go_to_the_first_class() -> None:
    assert top1(SCORES, np.array([1, 0, 0, 0])) == Accuracy(
        correct=4, total=4, low=wilson(4, 4)[0], high=1.0, confidence=0.95
    )
    measured = top1(SCORES, np.array([1, 1, 2, 2]), confidence=0.9)
    assert (measured.correct, measured.total, measured.accuracy) == (1, 4, 0.25)
    assert (measured.low, measured.high) == wilson(1, 4, 0.9)
    assert top1((SCORES * 10).astype(np.int8), np.array([1, 0, 0, 0])).correct == 4


def test_agreement_is_of_classes_not_of_scores() -> None:
    assert agreement(SCORES, SCORES * 3 + 1) == 1.0
    other = SCORES.copy()
    other[1] = (0.4, 0.5, 0.1)
    assert agreement(SCORES, other) == 0.75
    assert agreement(SCORES.astype(np.float64), SCORES.astype(np.float16)) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (
            SCORES,
            [0, 1, 3, 2],
            "the model gives 3 scores, the labels run from 0 to 3\n  fix: choose the data set the model was made for",
        ),
        (
            SCORES,
            [0, 1],
            "4 rows of scores cannot be compared with labels of shape (2,)\n"
            "  fix: hand in one row of scores for each labelled image, and at least one image",
        ),
        (
            SCORES[:0],
            [],
            "0 rows of scores cannot be compared with labels of shape (0,)\n"
            "  fix: hand in one row of scores for each labelled image, and at least one image",
        ),
        (
            SCORES[0],
            [0, 1, 2],
            "scores must have the shape (images, classes), not (3,)\n  fix: use a model with one score for each class",
        ),
        (
            np.array([[0.0, 1.0], [np.nan, 1.0]]),
            [0, 1],
            "the model's scores of image 1 are not numbers (NaN)\n"
            "  why: the images, or the weights after training, hold NaN or infinite values\n"
            "  fix: look at the training's loss, and lower the learning rate if it became NaN",
        ),
    ],
)
def test_scores_that_cannot_be_counted(scores: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        top1(scores, np.array(labels, dtype=np.int64))
    assert str(caught.value) == message


def test_scores_of_different_classes_do_not_agree() -> None:
    with pytest.raises(ModelError) as caught:
        agreement(SCORES, SCORES[:, :2])
    assert str(caught.value) == (
        "scores of shape (4, 3) cannot be compared with a reference of (4, 2)\n"
        "  fix: run both models on the same images, at least one; both need the same classes"
    )


def test_impossible_values() -> None:
    with pytest.raises(ValueError, match="correct must lie"):
        Accuracy(correct=3, total=2, low=0, high=1)
    with pytest.raises(ValueError, match="must enclose the accuracy"):
        Accuracy(correct=1, total=2, low=0.6, high=1)


def test_memory_of_the_model_is_what_came_on_top() -> None:
    assert Memory(peak_bytes=70, before_bytes=50).model_bytes == 20
    assert Memory(peak_bytes=50, before_bytes=70).model_bytes == 0


def test_describes_this_machine() -> None:
    machine = describe_machine()
    assert machine.cpu
    assert machine.architecture == platform.machine()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.kernel == platform.release()
    assert machine.load_average is None or machine.load_average >= 0


def test_digest_stands_for_all_but_the_load() -> None:
    machine = describe_machine()
    assert machine_digest(machine) == machine_digest(replace(machine, load_average=99.0))
    assert len(machine_digest(machine)) == 64
    for change in ({"cpu": "another"}, {"cores": 99}, {"kernel": "0.1"}, {"governor": "powersave"}):
        assert machine_digest(replace(machine, **change)) != machine_digest(machine)


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n", "AMD EPYC"),
        (
            "processor\t: 0\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
            "Raspberry Pi 4 Model B Rev 1.4",
        ),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", ""),
        ("", ""),
    ],
)
def test_names_the_processor(cpuinfo: str, name: str) -> None:
    assert _first_field(cpuinfo, _CPU_FIELDS) == name


@pytest.mark.parametrize(
    ("cpuinfo", "virtual"),
    [
        ("processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n", True),
        ("processor\t: 0\nflags\t\t: fpu vme lahf_lm\nbugs\t\t: hypervisor\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm\n", False),
    ],
)
def test_whether_a_host_places_the_cores(
    cpuinfo: str, virtual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, tree = tmp_path / "cpuinfo", tmp_path / "hypervisor"
    written.write_text(cpuinfo)
    monkeypatch.setattr(machine_module, "_CPUINFO", written)
    monkeypatch.setattr(machine_module, "_DEVICE_TREE_HYPERVISOR", tree)
    assert machine_module.is_virtual() is virtual
    tree.mkdir()
    assert machine_module.is_virtual()


def test_measurement_values_are_light() -> None:
    script = "import sys, emb.spec.measurement; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
