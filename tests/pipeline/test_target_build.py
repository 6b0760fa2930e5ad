"""`emb build --target`: refused before an hour is spent, forced if the user insists, and said in the report."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emb.bench import machine
from emb.graph import files
from emb.pipeline.deliverable import find_all
from emb.pipeline.recipes import load_recipe, load_target, shelf
from emb.pipeline.targeting import kernels_of, with_kernels

pytestmark = pytest.mark.slow

SHORT = ("--epochs", "1", "--data", "digits", "--format", "tflite")


@pytest.fixture(scope="module")
def boards(emb: Any) -> Path:
    """Targets of one's own: one with 4 KiB of SRAM for its Ethos-U, one without memory for anything."""
    folder: Path = emb.home / "boards"
    folder.mkdir()
    text = (shelf("targets") / "corstone-300.toml").read_text()
    (folder / "narrow.toml").write_text(text.replace("sram_bytes = 2_097_152", "sram_bytes = 4_096"))
    (folder / "thimble.toml").write_text(
        'summary = "A thimble"\nprocessor = "any"\nruntimes = []\nram_bytes = 5_000\nflash_bytes = 1_000_000\n'
        'arena = "tflite-micro"\n'
    )
    return folder


@pytest.fixture(scope="module")
def aimed(emb: Any) -> dict[str, Any]:
    report: dict[str, Any] = emb.json(
        "build", "lenet", "--quantize", "int8,float16", *SHORT, "--target", "corstone-300", "--output", "aimed"
    )
    return report


def test_the_report_says_that_it_fits_and_whose_figures_these_are(emb: Any, aimed: dict[str, Any]) -> None:
    target = aimed["target"]
    assert list(aimed)[-1] == "target"
    assert (target["name"], target["file"], target["fits"], target["faults"]) == (
        "corstone-300",
        "lenet-int8.tflite",
        True,
        [],
    )
    assert (target["operations_on_accelerator"], target["operations"], target["on_cpu"]) == (8, 8, [])
    assert target["npu"]["compiler"].startswith("Vela 5.")
    assert target["npu"]["cycles"] > 0
    assert target["other_files"] == {
        "lenet-float32.tflite": "the Ethos-U takes .tflite of integers alone",
        "lenet-float16.tflite": "the Ethos-U takes .tflite of integers alone",
    }
    assert json.loads((emb.home / "aimed" / "report.json").read_text())["target"] == target
    page = (emb.home / "aimed" / "report.md").read_text()
    assert "## Target: corstone-300" in page
    assert f"estimates {target['npu']['cycles']:,} cycles" in page
    assert "nothing of it was measured" in page


def test_the_compiled_file_lies_beside_the_plain_one(emb: Any, aimed: dict[str, Any]) -> None:
    folder = emb.home / "aimed"
    compiled = folder / "lenet-int8_vela.tflite"
    assert aimed["target"]["compiled"] == compiled.name
    assert {operation.native for operation in files.read(compiled).operations} == {"ethos-u"}
    assert compiled.stat().st_size == aimed["target"]["npu"]["file_bytes"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["target"] == "corstone-300"
    assert manifest["files"][compiled.name] == hashlib.sha256(compiled.read_bytes()).hexdigest()
    # What reads a build by its contract does not see it: no runtime here can run it.
    assert compiled.name not in {deliverable.path.name for deliverable in find_all(folder)}
    assert compiled.name not in (folder / "contract.json").read_text()


def test_without_a_target_nothing_of_it_is_there(emb: Any, built: dict[str, Any]) -> None:
    assert "target" not in built
    assert "target" not in json.loads((emb.home / "built" / "manifest.json").read_text())
    assert not list((emb.home / "built").glob("*_vela.tflite"))


def test_a_model_that_does_not_fit_is_refused_before_the_training(emb: Any, boards: Path) -> None:
    done = emb.run(
        "build", "lenet", "--quantize", "int8", *SHORT, "--seed", "11", "--target", "boards/thimble.toml",
        "--output", "never", expect=2,
    )  # fmt: skip
    assert done.stdout == ""
    error = done.stderr[done.stderr.index("error: ") :]
    assert error == (
        "error: lenet needs 5,888 bytes of RAM at least; thimble has 5,000\n"
        "  why: 5,888 bytes of activations, most of them around pool1, and 0 of the file\n"
        "  fix: take a smaller input or width, another scheme, or a target with more of it\n"
        "       or build it all the same, with --force\n"
    )
    assert "epoch" not in done.stderr
    assert "model " not in done.stderr
    assert not (emb.home / "never").exists()


def test_velas_numbers_refuse_it_too(emb: Any, boards: Path) -> None:
    done = emb.run("build", "lenet", *SHORT, "--target", "boards/narrow.toml", "--json", expect=2)
    error = json.loads(done.stdout)["error"]
    assert error["what"].startswith("lenet needs ")
    assert error["what"].endswith(" bytes of SRAM; narrow has 4,096")
    assert "most activations are alive around pool1" in error["why"]
    assert error["fix"].endswith("or build it all the same, with --force")
    assert "epoch" not in done.stderr


def test_forced_it_goes_on_and_the_report_says_what_does_not_fit(emb: Any, boards: Path) -> None:
    call = ("build", "lenet", "--quantize", "int8", *SHORT, "--target", "boards/thimble.toml", "--output", "forced")
    report = emb.json(*call, "--force")
    target = report["target"]
    assert (target["fits"], target["compiled"], target["npu"]) == (False, None, None)
    assert [fault["what"] for fault in target["faults"]] == [
        "lenet-int8.tflite needs 5,888 bytes of RAM at least; thimble has 5,000"
    ]
    assert target["faults"][0]["operation"] == "pool1"
    assert "- does not fit: lenet-int8.tflite needs 5,888" in (emb.home / "forced" / "report.md").read_text()
    # That it was forced once does not let it pass the next time.
    emb.run(*call, expect=2)


def test_an_accelerator_that_takes_no_multiplication(emb: Any) -> None:
    """The published GoogLeNet stops the Edge TPU at its first normalization; the error names layer and remedy."""
    done = emb.run(
        "build", "googlenet-cifar10", "--set", "model.arguments.normalization=lrn", "--set",
        "model.arguments.width=0.25", *SHORT, "--target", "coral-usb-pc", expect=2,
    )  # fmt: skip
    assert "operations of googlenet-cifar10 run on coral-usb-pc's accelerator, as predicted\n" in done.stderr
    assert "  why: RSQRT norm1: Operation not supported\n" in done.stderr
    assert "--set model.arguments.normalization=batch" in done.stderr
    assert "epoch" not in done.stderr


def test_a_model_of_ones_own_is_refused_before_it_is_measured(emb: Any, aimed: dict[str, Any], boards: Path) -> None:
    call = ("build", "aimed/lenet-float32.tflite", "--data", "digits", "--quantize", "int8")
    done = emb.run(*call, "--target", "boards/thimble.toml", "--output", "own-aimed", expect=2)
    assert "error: lenet-float32-int8.tflite needs " in done.stderr
    assert "verify" not in done.stderr
    assert not (emb.home / "own-aimed").exists()
    report = emb.json(*call, "--target", "imx93", "--output", "own-aimed")
    assert report["target"]["fits"]
    assert (emb.home / "own-aimed" / report["target"]["compiled"]).is_file()


def test_a_model_of_ones_own_that_is_to_be_trained_is_refused_before_that(emb: Any, boards: Path) -> None:
    emb.run("train", "lenet", "--epochs", "1", "--data", "digits", "--output", "trained")
    done = emb.run(
        "build", "trained/model.keras", *SHORT, "--quantize", "int8", "--target", "boards/thimble.toml", expect=2
    )
    assert "error: model needs 5,888 bytes of RAM at least; thimble has 5,000\n" in done.stderr
    assert "most of them around pool1" in done.stderr
    assert "epoch" not in done.stderr


def test_nothing_that_the_target_runs(emb: Any) -> None:
    call = ("build", "lenet", "--quantize", "float16", *SHORT, "--target", "rp2040")
    done = emb.run(*call, expect=2)
    assert done.stderr.startswith("error: rp2040 runs none of the files of this build\n")
    forced = emb.json(*call, "--force")
    assert (forced["target"]["file"], forced["target"]["fits"]) == ("", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--force",), "error: --force does not apply to a build without a target\n"),
        (("--target", "corstone300"), "error: unknown target 'corstone300'\n  fix: did you mean 'corstone-300'?"),
    ],
)
def test_bad_input(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    done = emb.run("build", "lenet", *arguments, expect=2)
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_the_first_layer_is_made_for_the_target_s_kernels(emb: Any) -> None:
    short = ("--epochs", "1", "--data", "digits", "--quantize", "int8")
    packed = emb.json("build", "lenet", *short, "--target", "linux-x86-64", "--output", "packed")
    left = emb.json(
        "build", "lenet", *short, "--target", "linux-x86-64", "--set", "quantize.lanes=1", "--output", "left"
    )
    (note, other) = [one for one in packed["notes"] if "neighbouring pixels" in one]
    assert note.startswith("int8 .tflite: ")
    assert other.startswith("int8 .onnx: ")
    assert not [one for one in left["notes"] if "neighbouring pixels" in one]
    for one, plain in zip(packed["rows"], left["rows"], strict=True):
        assert (one["runtime"], one["accuracy"], one["agreement"]) == (
            plain["runtime"],
            plain["accuracy"],
            plain["agreement"],
        )
        assert (one["macs"] > plain["macs"]) is (one["scheme"] == "int8")
    assert json.loads((emb.home / "packed" / "manifest.json").read_text())["recipe"]["quantize"]["lanes"] == 8
    # What looks into an int8 file finds its layers as before.
    layers = [
        [(row["layer"], row["cosine"]) for row in emb.json("inspect", folder, "--quantization-error")["layers"]]
        for folder in ("packed", "left")
    ]
    assert layers[0] == layers[1]


@pytest.mark.parametrize(
    ("target", "lanes", "maps"),
    [
        ("linux-x86-64", 8, 8),
        ("rpi4", 8, 8),
        ("rpi5", 4, 16),
        ("rpi3b-plus", 1, 16),
        ("rpi-zero-2w", 1, 16),
        ("coral-usb-rpi4", 0, 0),
        ("linux-arm64", 0, 0),
    ],
)
def test_which_kernels_a_target_has(target: str, lanes: int, maps: int) -> None:
    assert kernels_of(load_target(target)) == (lanes, maps)
    recipe = load_recipe("lenet")
    chosen = with_kernels(recipe, load_target(target)).quantize
    assert (chosen.lanes, chosen.maps) == (lanes, maps)
    # Lanes of the recipe's own go with its own maps, so that one lane packs nothing; maps with the target's lanes.
    named = replace(recipe, quantize=replace(recipe.quantize, lanes=1))
    assert with_kernels(named, load_target(target)) == named
    named = replace(recipe, quantize=replace(recipe.quantize, maps=4))
    chosen = with_kernels(named, load_target(target)).quantize
    assert (chosen.lanes, chosen.maps) == (lanes, 4)


@pytest.mark.parametrize(
    ("flags", "maps", "maps_in_few_bytes"),
    [("avx2", 8, 8), ("avx2 avx512bw", 16, 16), ("avx512bw amx_tile amx_int8", 64, 16), ("avx512bw amx_tile", 16, 16)],
)
def test_the_machine_at_hand_says_how_wide_its_kernels_are(
    flags: str, maps: int, maps_in_few_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse2\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    host = load_target("host")
    assert kernels_of(host) == (8, maps)
    recipe = load_recipe("lenet")
    for goal, expected in (("latency=2x", maps), (0.5, maps), ("bytes=20kB", maps_in_few_bytes)):
        pruned = replace(recipe, prune=replace(recipe.prune, method="channels", goal=goal))
        assert with_kernels(pruned, host).quantize.maps == expected
    assert with_kernels(recipe, host).quantize.maps == maps
