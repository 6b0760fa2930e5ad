"""Vela, for real, on files of the zoo: what it places where, its figures, its errors."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from emb.deploy.vela import DEVICE, compile_model, reasons, remedy
from emb.errors import ExportError, ModelError, SpecError
from emb.graph import files
from emb.graph.vocabulary import PRODUCTS
from emb.pipeline.recipes import load_recipe, load_target
from emb.pipeline.untrained import converted, model_of
from emb.spec.placement import Placement
from emb.spec.target import Accelerator

BOARDS = {"ethos-u55-128": "corstone-300", "ethos-u65-256": "imx93", "ethos-u85-256": "corstone-320"}
U55 = load_target("corstone-300").accelerator
LOG = """\
TfLiteReader: Built-in options type 'CumsumOptions' is not yet implemented and will be ignored.
Warning (supported operators) operator: QUANTIZE, ofm: 'tfl.quantize'
Reason: Operation has tensor with unsupported DataType Float32 (Cumsum)
Feature-map dataTypes must be one of {"INT16", "INT8"}
Warning (supported operators) operator: CUMSUM, ofm: 'Cumsum'
Reason: Unsupported opType

Network summary for model
"""


def model(name: str, *, scheme: str = "int8", changes: dict[str, object] | None = None) -> Path:
    recipe = load_recipe(name, changes=[changes] if changes else [])
    height, width, channels = recipe.input.shape or (28, 28, 1)
    path, _ = model_of(converted(recipe, shape=(height, width, channels), classes=10, scheme=scheme))
    return path


SMALL_DENSENET = {"model": {"arguments": {"depth": 40}}}
MODELS = {"lenet": None, "resnet8-cifar10": None, "densenet-cifar10": SMALL_DENSENET}


def test_reasons_are_read_from_the_log() -> None:
    assert reasons(LOG) == {
        "tfl.quantize": (
            "Operation has tensor with unsupported DataType Float32 (Cumsum)",
            'Feature-map dataTypes must be one of {"INT16", "INT8"}',
        ),
        "Cumsum": ("Unsupported opType", ""),
    }


def test_the_remedy_is_that_of_the_reason() -> None:
    left = Placement(operation="a", kind="CONV_2D", device="cpu", status="Unsupported opType")
    assert remedy(left) == "replace that layer by one that Vela places on the NPU"
    floats = replace(left, status="Operation has tensor with unsupported DataType Float32 (a)")
    assert remedy(floats) == "give the int8 .tflite of the same model"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "ethos-u"}, "configuration belongs to an Ethos-U, which needs it"),
        ({"kind": "edge-tpu", "sram_bytes": 1}, "sram_bytes belongs to an Ethos-U, which needs it"),
        ({"sram_bytes": -1}, "sram_bytes must not be negative"),
    ],
)
def test_an_accelerator_has_the_fields_of_its_kind(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Accelerator(**fields)  # type: ignore[arg-type]


def test_a_target_file_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text('summary = "a"\nprocessor = "b"\nruntimes = []\n[accelerator]\nkind = "ethos-u"\n')
    with pytest.raises(SpecError) as caught:
        load_target(str(path))
    assert str(caught.value) == (
        "target board.toml has a fault\n"
        "  why: accelerator.configuration: belongs to an Ethos-U, which needs it\n"
        "  fix: correct them and try again"
    )


@pytest.mark.slow
@pytest.mark.parametrize("configuration", BOARDS)
@pytest.mark.parametrize("name", MODELS)
def test_three_networks_on_three_accelerators(name: str, configuration: str) -> None:
    target = load_target(BOARDS[configuration])
    assert target.accelerator.configuration == configuration
    path = model(name, changes=MODELS[name])
    compiled = compile_model(path, target.accelerator)
    graph = files.read(path)
    assert [placement.operation for placement in compiled.placements] == [one.name for one in graph.operations]
    assert {placement.device for placement in compiled.placements} == {DEVICE}
    estimate = compiled.estimate
    assert estimate.latency_us == pytest.approx(estimate.cycles / estimate.clock_hz * 1e6)
    assert estimate.cycles > 0
    # Less than one byte for each parameter would be no model; Vela compresses, and writes commands beside them.
    held = estimate.flash_bytes + estimate.dram_bytes
    assert 0.5 * path.stat().st_size < held <= estimate.file_bytes + estimate.sram_bytes
    input_bytes = graph.tensors[graph.inputs[0]].storage_bytes
    assert input_bytes is not None
    assert input_bytes < estimate.sram_bytes <= target.accelerator.sram_bytes


@pytest.mark.slow
def test_more_multipliers_take_fewer_cycles() -> None:
    path = model("resnet8-cifar10")
    cycles = [
        compile_model(path, replace(U55, configuration=f"ethos-u55-{count}")).estimate.cycles
        for count in (32, 64, 128, 256)
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert len(set(cycles)) == 4


@pytest.mark.slow
def test_less_sram_is_used_where_less_is_allowed() -> None:
    path = model("lenet")
    wide = compile_model(path, U55).estimate
    narrow = compile_model(path, replace(U55, sram_bytes=8_192)).estimate
    assert narrow.sram_bytes <= 8_192 < wide.sram_bytes
    assert narrow.cycles >= wide.cycles


@pytest.mark.slow
def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "named otherwise.tflite"
    shutil.copyfile(model("lenet"), copy)
    one, other = (compile_model(path, U55) for path in (model("lenet"), copy))
    assert hashlib.sha256(one.model).digest() == hashlib.sha256(other.model).digest()
    assert one.placements == other.placements


@pytest.mark.slow
def test_a_float_file_stays_on_the_processor_with_velas_reason() -> None:
    compiled = compile_model(model("lenet", scheme="float32"), U55)
    assert {placement.device for placement in compiled.placements} == {"cpu"}
    products = [placement for placement in compiled.placements if placement.kind in PRODUCTS]
    assert len(products) == 5
    assert all("unsupported DataType Float32" in placement.status for placement in products)
    assert compiled.estimate.cycles == 0


@pytest.mark.slow
def test_what_cannot_be_compiled(tmp_path: Path) -> None:
    path = model("lenet")
    again = tmp_path / "again.tflite"
    again.write_bytes(compile_model(path, U55).model)
    with pytest.raises(ModelError) as caught:
        compile_model(again, U55)
    assert str(caught.value) == (
        "again.tflite is compiled for an Ethos-U already\n"
        "  why: it holds the operation ethos-u\n"
        "  fix: give the file that it was compiled from"
    )
    with pytest.raises(ExportError) as failed:
        compile_model(path, replace(U55, system_config="Nowhere"))
    assert failed.value.what == "Vela could not compile model.tflite"
    assert "Section System_Config.Nowhere not found" in failed.value.why
    with pytest.raises(ExportError) as slow:
        compile_model(path, U55, timeout_s=0.01)
    assert slow.value.what == "Vela did not finish model.tflite within 0.01 s"
