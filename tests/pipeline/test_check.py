"""`emb check`: what it says of recipes, files and builds, what fits and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from emb.errors import SpecError
from emb.pipeline.check import check, layer_of
from emb.pipeline.recipes import load_target, shelf, target_names

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", target_names())
def test_every_target_says_where_it_comes_from(name: str) -> None:
    target = load_target(name)
    if target.ram_bytes:
        assert target.source
    assert bool(target.flash_bytes) != bool(target.runtimes)
    assert all(prior.source for prior in target.priors)


def test_a_small_network_fits_a_microcontroller() -> None:
    found = check("lenet", target="arduino-nano33-ble", classes=10)
    assert found.faults == ()
    # The first pooling's input of 28x28x6 and output of 14x14x6, which takes whole multiples of 16 bytes.
    assert found.arena_bytes == 28 * 28 * 6 + 14 * 14 * 6 + 8
    assert found.fullest == "pool1"
    assert found.latency is None


def test_a_network_that_is_too_large_is_told_with_the_numbers() -> None:
    found = check("vgg16", target="rp2040", classes=10, assignments=["model.arguments.width=0.25"])
    ram, flash = found.faults
    assert ram.what == f"vgg16 needs {found.arena_bytes:,} bytes of RAM at least; rp2040 has 270,336"
    assert ram.operation == found.fullest == "stage1_conv2"
    assert flash.what == f"vgg16 needs {found.file_bytes:,} bytes of flash; rp2040 has 2,097,152"


@pytest.mark.long
def test_lrn_keeps_a_network_from_the_edge_tpu_and_a_substitute_brings_it_there() -> None:
    small = ["input.shape=[32, 32, 3]"]
    found = check("googlenet", target="coral-usb-pc", classes=10, assignments=small)
    (fault,) = found.faults
    assert fault.why == "RSQRT norm1: Operation not supported"
    assert "--set model.arguments.normalization=batch" in fault.fix
    assert found.latency is None

    batch = [*small, "model.arguments.normalization=batch"]
    substitute = check("googlenet", target="coral-usb-pc", classes=10, assignments=batch)
    assert substitute.faults == ()
    assert {placement.device for placement in substitute.placements} == {"edge-tpu"}
    assert substitute.latency is not None
    assert substitute.latency.lowest_us < substitute.latency.highest_us
    assert "Coral" in substitute.latency.source


@pytest.mark.parametrize("board", ["corstone-300", "imx93", "corstone-320"])
def test_a_network_runs_on_an_ethos_u(board: str) -> None:
    found = check("lenet", target=board, classes=10)
    assert found.faults == ()
    assert {placement.device for placement in found.placements} == {"ethos-u"}
    assert {placement.layer for placement in found.placements} >= {"conv1", "pool2", "scores"}
    assert found.latency is None
    npu = found.to_json()["npu"]
    assert npu["compiler"].startswith("Vela 5.")
    assert npu["sram_bytes"] <= load_target(board).accelerator.sram_bytes


def test_what_an_ethos_u_has_no_sram_for_is_refused_with_the_numbers(tmp_path: Any) -> None:
    path = tmp_path / "small.toml"
    board = shelf("targets") / "corstone-300.toml"
    path.write_text(board.read_text().replace("sram_bytes = 2_097_152", "sram_bytes = 4_096"))
    found = check("lenet", target=str(path), classes=10)
    assert found.npu is not None
    assert [fault.what for fault in found.faults] == [
        f"lenet needs {found.npu.sram_bytes:,} bytes of SRAM; small has 4,096"
    ]
    (fault,) = found.faults
    assert fault.why == f"{found.npu.compiler} counts so for ethos-u55-128; most activations are alive around pool1"
    assert fault.operation == "pool1"


def test_a_network_too_large_for_its_flash_on_an_ethos_u(tmp_path: Any) -> None:
    path = tmp_path / "small.toml"
    board = shelf("targets") / "corstone-300.toml"
    path.write_text(board.read_text().replace("flash_bytes = 33_554_432", "flash_bytes = 65_536"))
    found = check("lenet", target=str(path), classes=10)
    assert found.npu is not None
    (fault,) = found.faults
    assert fault.what == f"lenet needs {found.npu.file_bytes:,} bytes of flash; small has 65,536"


def test_files_on_an_ethos_u(emb: Any, built: Any) -> None:
    shown = emb.run("check", "built", "--target", "corstone-300").stdout
    assert "8 of 8 operations on the accelerator, which may use 2,097,152 bytes of SRAM" in shown
    assert "Vela 5." in shown
    assert "nothing of it was measured" in shown
    floats = emb.run("check", "built/lenet-float32.tflite", "--target", "imx93", expect=1).stdout
    assert "does not fit: 0 of the 8 operations" in floats
    assert "fix: give the int8 .tflite of the same model" in floats
    other = emb.run("check", "built/lenet-int8.onnx", "--target", "imx93", expect=2)
    assert other.stderr == (
        "error: lenet-int8.onnx is no .tflite file\n"
        "  why: Vela, the Ethos-U's compiler, reads nothing else\n"
        "  fix: give the int8 .tflite of the same model\n"
    )


def test_a_build_and_its_files(emb: Any, built: Any) -> None:
    found = emb.json("check", "built", "--target", "coral-usb-rpi4")
    assert found["fits"]
    assert {placement["device"] for placement in found["placements"]} == {"edge-tpu"}
    assert found["file_bytes"] == (emb.home / "built" / "lenet-int8.tflite").stat().st_size
    # 61,470 weights, and 8 bytes for each of 236 biases.
    assert (found["cached_bytes"], found["streamed_bytes"]) == (61_470 + 8 * 236, 0)
    # What the untrained recipe becomes is as large as the trained one's file.
    before = check("lenet", target="coral-usb-rpi4", classes=10)
    assert (before.file_bytes, before.cached_bytes) == (found["file_bytes"], found["cached_bytes"])

    refused = emb.json("check", "built/lenet-int8.onnx", "--target", "rp2040", expect=1)
    assert [fault["what"] for fault in refused["faults"]] == [
        "built/lenet-int8.onnx is an .onnx file; rp2040 runs .tflite"
    ]
    floats = emb.run("check", "built/lenet-float32.tflite", "--target", "coral-usb-pc", expect=1).stdout
    assert "does not fit: 0 of the" in floats
    assert "Operation is working on an unsupported data type" in floats
    assert "fix: give the int8 .tflite of the same model" in floats


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", "--target", "rpi44"), "error: unknown target 'rpi44'\n  fix: did you mean 'rpi4'?"),
        (("lenett", "--target", "rpi4"), "error: unknown recipe 'lenett'\n  fix: did you mean 'lenet'?"),
        (("none.tflite", "--target", "rpi4"), "error: there is no model file none.tflite\n"),
        (("own.keras", "--target", "rpi4"), "error: emb check does not convert own.keras\n"),
        (("built", "--target", "rpi4", "--classes", "3"), "error: --classes does not apply to built\n"),
    ],
)
def test_bad_input(emb: Any, built: Any, arguments: tuple[str, ...], message: str) -> None:
    done = emb.run("check", *arguments, expect=2)
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_target_of_ones_own(tmp_path: Any) -> None:
    path = tmp_path / "board.toml"
    path.write_text('summary = "Mine"\nprocessor = "any"\nruntimes = ["litert"]\nram_bytes = 1_000\n')
    (fault,) = check("lenet", target=str(path), classes=10).faults
    assert "board has 1,000" in fault.what
    path.write_text('summary = "Mine"\nprocessor = "any"\nruntimes = []\nram_bytes = -1\n')
    with pytest.raises(SpecError, match="ram_bytes: must not be negative"):
        load_target(str(path))
    path.write_text('summary = "Mine"\nprocessor = "any"\nruntimes = []\nint8_maps = -1\n')
    with pytest.raises(SpecError, match="int8_maps: must not be negative"):
        load_target(str(path))


def test_layers_behind_the_names_of_a_file() -> None:
    layers = ("conv1_1", "relu1", "scores")
    assert layer_of("vgg_1/relu1_1/Relu;vgg_1/conv1_1_1/convolution", layers) == "conv1_1"
    assert layer_of("scores", layers) == "scores"
    assert layer_of("PartitionedCall", layers) == ""
