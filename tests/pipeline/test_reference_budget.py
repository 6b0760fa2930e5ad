"""Large networks on reference kernels: golden outputs stay, the rest is left out, and the report says why."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emb.pipeline import measuring
from emb.pipeline.build import build
from emb.pipeline.measuring import golden_on, too_long_on_reference_kernels


def test_only_reference_kernels_are_too_slow():
    assert too_long_on_reference_kernels("default", macs=10**12, images=10**6) == ""
    assert too_long_on_reference_kernels("reference", macs=400_000, images=10_000) == ""
    assert too_long_on_reference_kernels("reference", macs=15_470_264_320, images=1_000) == (
        "1,000 images of 15,470 M MACs take too long on reference kernels"
    )


@pytest.mark.parametrize(("mode", "macs", "kept"), [("default", 10**12, 16), ("reference", 10**6, 16)])
def test_golden_images_are_all_kept_where_they_take_no_time(mode, macs, kept):
    assert golden_on(mode, macs=macs, images=16) == kept


@pytest.mark.parametrize(("macs", "kept"), [(15_470_264_320, 3), (10**12, 1)])
def test_of_a_large_network_the_first_golden_images_are_kept(macs, kept):
    assert golden_on("reference", macs=macs, images=16) == kept


@pytest.mark.slow
def test_a_build_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("EMB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "REFERENCE_MACS", 4 * 416_520 * 5)
    overrides = {"train.epochs": 1, "export.formats": "tflite"}
    report = build("lenet", overrides=overrides, output_directory=tmp_path / "build")
    assert not report.errors
    by_mode = {(row.scheme, row.runtime, row.mode): row for row in report.rows}
    skipped = by_mode["int8", "litert", "reference"]
    assert skipped.source.startswith("not measured: 359 images of 0 M MACs take too long on reference kernels")
    assert skipped.accuracy is None
    assert skipped.latency is None
    assert by_mode["int8", "litert", "default"].accuracy is not None
    golden = np.load(tmp_path / "build" / "golden" / "lenet-int8.tflite.litert.reference.npy")
    assert 1 <= len(golden) < 16
    samples = json.loads((tmp_path / "build" / "samples.json").read_text(encoding="utf-8"))
    assert {sample["mode"] for sample in samples} == {"default"}
