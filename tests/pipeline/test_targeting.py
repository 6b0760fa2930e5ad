"""Which files of a build a target runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from emb.errors import ModelError
from emb.pipeline.recipes import load_target
from emb.pipeline.targeting import Aim, deployment, refusal
from emb.quantize import SCHEMES
from emb.spec.scheme import Scheme


@dataclass(frozen=True)
class File:
    scheme: Scheme
    format: str

    @property
    def name(self) -> str:
        return f"net-{self.scheme.name}.{self.format}"

    @property
    def stage(self) -> str:
        return f"{self.scheme.name}.{self.format}"


def built(*names: str) -> list[File]:
    """As a build plans them: the float32 .tflite, then each format's schemes."""
    schemes = [SCHEMES.get(name).SCHEME for name in names]
    files = [File(scheme, one) for one in ("tflite", "onnx") for scheme in schemes if one in scheme.formats]
    reference = File(SCHEMES.get("float32").SCHEME, "tflite")
    return [reference, *(file for file in files if file != reference)]


def aim(name: str, *, force: bool = False) -> Aim:
    return Aim(target=load_target(name), force=force)


MICRO = "TensorFlow Lite Micro has no kernels for float16 weights"


@pytest.mark.parametrize(
    ("target", "scheme", "file_format", "reason"),
    [
        ("rpi4", "float16", "tflite", ""),
        ("rpi4", "dynamic", "tflite", ""),  # LiteRT runs it
        ("rpi4", "int8", "onnx", ""),
        ("coral-usb-pc", "int8", "tflite", ""),
        ("coral-usb-pc", "int16x8", "tflite", "the Edge TPU takes int8 .tflite alone"),
        ("coral-usb-pc", "float32", "tflite", "the Edge TPU takes int8 .tflite alone"),
        ("coral-usb-pc", "int8-qat", "tflite", ""),
        ("coral-usb-pc", "int4w", "tflite", "the Edge TPU takes int8 .tflite alone"),
        ("rpi4", "int4w", "tflite", ""),
        ("imx93", "int4w", "tflite", "the Ethos-U takes 8-bit weights alone"),
        ("rp2040", "int4w", "tflite", "TensorFlow Lite Micro has no kernels for int4w weights"),
        ("imx93", "int16x8", "tflite", ""),
        ("imx93", "dynamic", "tflite", "the Ethos-U takes .tflite of integers alone"),
        ("corstone-300", "int8", "onnx", "the Ethos-U takes .tflite of integers alone"),
        ("rp2040", "int8", "tflite", ""),
        ("rp2040", "float32", "tflite", ""),
        ("rp2040", "float16", "tflite", MICRO),
        ("rp2040", "int8", "onnx", "TensorFlow Lite Micro reads .tflite alone"),
    ],
)
def test_what_a_target_refuses(target: str, scheme: str, file_format: str, reason: str) -> None:
    assert refusal(SCHEMES.get(scheme).SCHEME, file_format, load_target(target)) == reason


@pytest.mark.parametrize(
    ("target", "schemes", "file", "is_compiled"),
    [
        ("rpi4", ("float16", "int8"), "net-int8.tflite", False),
        ("rpi4", ("float16",), "net-float16.tflite", False),
        ("rpi4", ("float32",), "net-float32.tflite", False),
        ("corstone-300", ("int8-uint8", "float16"), "net-int8-uint8.tflite", True),
        ("imx93", ("int16x8",), "net-int16x8.tflite", True),
    ],
)
def test_the_file_that_the_target_runs(target: str, schemes: tuple[str, ...], file: str, is_compiled: bool) -> None:
    deployed = deployment(built(*schemes), aim(target), schemes=schemes)
    assert (deployed.file, deployed.is_compiled) == (file, is_compiled)
    assert file not in deployed.other_files


def test_a_target_that_runs_nothing_of_a_build() -> None:
    files = built("float16")
    with pytest.raises(ModelError) as caught:
        deployment(files, aim("rp2040"), schemes=("float16",))
    assert str(caught.value) == (
        "rp2040 runs none of the files of this build\n"
        f"  why: net-float16.tflite: {MICRO}\n"
        "       net-float16.onnx: TensorFlow Lite Micro reads .tflite alone\n"
        "  fix: build int8 as well, --quantize int8, or build it all the same, with --force"
    )
    forced = deployment(files, aim("rp2040", force=True), schemes=("float16",))
    assert forced.file == ""
    assert len(forced.other_files) == 2
