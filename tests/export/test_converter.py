"""What a converter prints is kept, what it fails with is told, and the descriptors are as before."""

from __future__ import annotations

import os
import sys

import pytest

from emb.errors import ExportError, ModelError
from emb.export._converter import converting


def test_native_and_python_output_is_kept_from_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with converting("failed") as log:
        os.write(1, b"native out\n")
        os.write(2, b"native error\n")
        print("python out")
        print("python error", file=sys.stderr)
        kept = log.text()
    print("after")
    assert [line for line in kept.splitlines() if line.startswith("native")] == ["native out", "native error"]
    shown = capfd.readouterr()
    assert shown.out.endswith("after\n")
    assert "native" not in shown.out + shown.err


def _convert_and_fail() -> None:
    with converting("it could not be converted", fix="try another layer"):
        os.write(2, b"I0000 00:00:1.2 1 some.cc:1] routine\nerror: 'tf.FFT2D' op is unknown\n")
        raise RuntimeError("conversion failed")


def test_failure_carries_the_message_and_the_last_words() -> None:
    with pytest.raises(ExportError) as caught:
        _convert_and_fail()
    assert str(caught.value) == (
        "it could not be converted\n"
        "  why: conversion failed\n"
        "       error: 'tf.FFT2D' op is unknown\n"
        "  fix: try another layer"
    )


def test_the_descriptors_are_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError):
        _convert_and_fail()
    os.write(2, b"here again")
    assert capfd.readouterr().err == "here again"


def test_errors_of_emb_pass_through() -> None:
    with pytest.raises(ModelError, match=r"^no model$"), converting("failed"):
        raise ModelError("no model")
