"""The remedy that leaves layers in float32: when it is allowed, what it chooses, and what its files say of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.errors import SpecError
from emb.graph.files import read
from emb.graph.vocabulary import REPRESENTATIONS
from emb.pipeline.engine import Engine
from emb.pipeline.keeping_float import _grown, _Network, _thinned
from emb.pipeline.plan import Plan, plan
from emb.pipeline.recipes import load_target
from emb.pipeline.repairing import remedies_in_order
from emb.pipeline.request import resolve
from emb.pipeline.targeting import Aim
from emb.spec.repair import FloatLayers, Repair, RepairTry

_SPEC = importlib.util.spec_from_file_location("hard_model", Path(__file__).parents[2] / "benchmarks" / "hard_model.py")
assert _SPEC is not None
assert _SPEC.loader is not None
hard_model = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hard_model)

NOT_ALLOWED = "allow it with --keep-float, or name a target that computes floats with --target"
SLOW = "on nucleo-l4r5zi floats take far longer than integers; allow it with --keep-float"


def planned(*assignments: str, target: str = "", force: bool = False, limit: str = "1") -> Plan:
    return plan(
        resolve("lenet", assignments=[f"repair.max_drop={limit}", *assignments], data="digits"),
        data_digest="",
        model_digest="",
        machine_digest="",
        engine=Engine(),
        gradients=False,
        aim=Aim(target=load_target(target), force=force) if target else None,
    )


def repair_of(found: Plan) -> Any:
    return next(stage for stage in found.stages if stage.group == "repair")


def test_floats_come_last_unless_they_are_asked_for() -> None:
    cheap = ["calibration method per tensor", "cross-layer equalization", "bias correction", "learned rounding"]
    floats, training = "layers in float32", "quantization-aware training"
    assert remedies_in_order(floats=True, floats_last=False) == [*cheap, floats, training]
    assert remedies_in_order(floats=True, floats_last=True) == [*cheap, training, floats]
    for last in (True, False):
        assert remedies_in_order(floats=False, floats_last=last) == [*cheap, training]


@pytest.mark.parametrize(
    ("wish", "target", "refusal"),
    [
        ("auto", "", NOT_ALLOWED),
        ("allow", "", ""),
        ("never", "", "repair.keep_float forbids it"),
        ("auto", "rpi4", ""),
        ("auto", "linux-x86-64", ""),
        ("never", "rpi4", "repair.keep_float forbids it"),
        ("auto", "coral-usb-rpi4", "the Edge TPU takes int8 .tflite alone"),
        ("auto", "imx93", "the Ethos-U takes .tflite of integers alone"),
        ("auto", "nucleo-l4r5zi", SLOW),
        ("allow", "nucleo-l4r5zi", ""),
    ],
)
def test_where_layers_may_stay_float(wish: str, target: str, refusal: str) -> None:
    stage = repair_of(planned(f'repair.keep_float="{wish}"', target=target))
    assert stage.work.keywords["float_refusal"] == refusal
    assert stage.parameters["float_layers"] == (not refusal)
    assert stage.parameters["keep_float"] == wish


def test_a_wish_that_the_target_cannot_fulfil() -> None:
    with pytest.raises(SpecError) as caught:
        planned('repair.keep_float="allow"', target="coral-usb-rpi4")
    assert str(caught.value) == (
        "--keep-float does not apply to coral-usb-rpi4\n"
        "  why: the Edge TPU takes int8 .tflite alone\n"
        "  fix: leave it out, choose a target without an accelerator, or build it all the same, with --force"
    )
    assert repair_of(planned('repair.keep_float="allow"', target="coral-usb-rpi4", force=True)).parameters[
        "float_layers"
    ]


def test_a_wish_without_a_limit() -> None:
    with pytest.raises(SpecError, match=r"repair\.keep_float: belongs to a repair, which max_drop asks for"):
        planned('repair.keep_float="allow"', limit="100")


def test_what_reads_the_choice_is_made_anew_with_it() -> None:
    stages = {stage.name: stage for stage in planned('repair.keep_float="allow"').stages}
    assert "repair model" in stages["int8.tflite"].needs
    assert "repair model" in stages["check int8.tflite"].needs
    assert "repair model" in stages["check int8.onnx"].needs
    assert stages["check float32.tflite"].needs == ("float32.tflite",)


REPAIR = Repair(
    scheme="int8",
    goal_points=0.5,
    images=200,
    float_correct=190,
    first_correct=100,
    tries=(
        RepairTry(
            remedy="layers in float32",
            layers=("a", "b"),
            correct_before=100,
            correct_after=180,
            seconds=1.0,
            shortfall="the goal is not reached with 2 of 5 layers",
        ),
        RepairTry(
            remedy="quantization-aware training", layers=("a",), correct_before=100, correct_after=170, seconds=2.0
        ),
        RepairTry(remedy="layers in float32", layers=("b",), correct_before=170, correct_after=189, seconds=1.0),
    ),
    float_layers=FloatLayers(layers=("b",), macs_share=0.125, added_bytes=1234),
)


def test_what_a_repair_with_float_layers_says() -> None:
    assert REPAIR.lines()[1:] == [
        "layers in float32 +40.00 points, undone (the goal is not reached with 2 of 5 layers), 1.0 s: "
        "2 tensors or layers: a, b",
        "quantization-aware training +35.00 points, kept, 2.0 s: 1 tensor or layer: a",
        "layers in float32 +9.50 points, kept, 1.0 s: 1 tensor or layer: b",
        "repaired: 94.50 %, -0.50 points against float",
        "int8, 1 layer in float32: b; 12.50 % of the MACs, +1,234 bytes; such a file cannot be bundled",
    ]
    assert REPAIR.is_reached
    assert (REPAIR.enough, REPAIR.correct) == (189, 189)
    assert Repair.from_json(json.loads(json.dumps(REPAIR.to_json()))) == REPAIR


@given(
    images=st.integers(1, 20_000),
    goal=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 2.5]),
    data=st.data(),
)
def test_enough_is_the_least_that_reaches_the_goal(images: int, goal: float, data: st.DataObject) -> None:
    exact = data.draw(st.integers(0, images))

    def lost(correct: int) -> float:
        return 100 * (exact - correct) / images

    enough = Repair(
        scheme="int8", goal_points=goal, images=images, float_correct=exact, first_correct=0, tries=()
    ).enough
    assert lost(enough) <= goal + 1e-6
    assert lost(enough - 1) > goal - 1e-6


LAYERS = "abcdefgh"


@given(
    needed=st.frozensets(st.sampled_from(LAYERS), min_size=1),
    more=st.frozensets(st.sampled_from(LAYERS)),
    worst=st.permutations(LAYERS),
)
def test_what_is_not_needed_is_taken_back(needed: frozenset[str], more: frozenset[str], worst: list[str]) -> None:
    asked: list[frozenset[str]] = []

    def is_enough(layers: Collection[str]) -> bool:
        asked.append(frozenset(layers))
        return needed <= set(layers)

    assert _thinned(needed | more, worst, is_enough) == needed
    assert len(asked) <= len(needed | more)


@pytest.fixture(scope="module")
def irreparable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    return Path(hard_model.write_models(folder, data="digits", epochs=12)[1])


OWN = (
    "--data",
    "digits",
    "--set",
    "data.validation_fraction=0.3",
    "--quantize",
    "int8,int8-uint8",
    "--max-drop",
    "0.5",
)


@pytest.fixture(scope="module")
def repaired(emb: Any, irreparable: Path) -> dict[str, Any]:
    report: dict[str, Any] = emb.json("build", str(irreparable), *OWN, "--target", "rpi3b-plus", "--output", "in-float")
    return report


@pytest.mark.slow
@pytest.mark.long
def test_layers_and_those_that_read_them(repaired: dict[str, Any], emb: Any) -> None:
    graph = read(emb.home / "in-float" / "irreparable-float32.tflite")
    layers = ("conv1", "conv2", "conv3", "conv4", "up", "down", "pool", "scores", "softmax")
    network = _Network(graph=graph, layers=layers, folded={})
    assert network.candidates == layers[:-1]
    assert network.with_readers("up") == ("up", "down")
    assert network.with_readers("scores") == ("scores",)
    assert network.share_of_macs(layers) == 1
    assert network.share_of_macs(["up"]) == 0
    asked = []

    def is_enough(chosen: Collection[str]) -> bool:
        asked.append(set(chosen))
        return False

    # At most four: a third pair is not tried.
    chosen, reached = _grown(network, ["up", "conv1", "conv3", "pool"], is_enough)
    assert not reached
    assert asked == [{"up", "down"}, {"up", "down", "conv1", "conv2"}]
    assert chosen == {"up", "down", "conv1", "conv2"}


@pytest.mark.slow
@pytest.mark.long
def test_what_only_floats_can_repair(repaired: dict[str, Any], emb: Any) -> None:
    (repair,) = repaired["repairs"]
    assert repair["first_correct"] < repair["float_correct"] / 2
    assert repair["correct"] >= repair["float_correct"] - 0.005 * repair["images"]
    assert repair["float_layers"]["layers"] == ["up", "down"]
    assert [one["remedy"] for one in repair["tries"] if one["kept"]] == ["layers in float32"]
    # Test images, which no remedy has seen.
    measured = [row for row in repaired["rows"] if row["accuracy"] is not None]
    reference = max(row["accuracy"] for row in measured if row["scheme"] == "float32")
    integers = [row for row in measured if row["scheme"] != "float32"]
    assert {(row["scheme"], row["format"]) for row in integers} == {
        ("int8", "tflite"),
        ("int8", "onnx"),
        ("int8-uint8", "tflite"),
    }
    assert all(row["accuracy"] >= reference - 0.02 for row in integers)
    contract = json.loads((emb.home / "in-float" / "contract.json").read_text(encoding="utf-8"))
    named = {model["file"]: model["float_layers"] for model in contract["models"]}
    assert named == {
        "irreparable-float32.tflite": [],
        "irreparable-int8.tflite": ["up", "down"],
        "irreparable-int8-uint8.tflite": ["up", "down"],
        "irreparable-int8.onnx": ["up", "above", "down"],
    }
    assert "2 layers in float32: up, down;" in (emb.home / "in-float" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.long
def test_floats_are_those_of_the_named_layers(repaired: dict[str, Any], emb: Any) -> None:
    graph = read(emb.home / "in-float" / "irreparable-int8.tflite")
    kinds = [operation.kind for operation in graph.operations]
    assert kinds[4:8] == ["DEQUANTIZE", "ADD", "ADD", "QUANTIZE"]
    floats = [
        operation
        for operation in graph.operations
        if any(index >= 0 and graph.tensors[index].is_float for index in (*operation.inputs, *operation.outputs))
    ]
    assert floats == list(graph.operations[4:8])
    assert [one.name.split("/")[0] for one in floats if one.kind not in REPRESENTATIONS] == ["above_1", "down_1"]
    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {"int8"}


@pytest.mark.slow
@pytest.mark.long
def test_the_same_bytes_again_and_nothing_done_twice(
    repaired: dict[str, Any], emb: Any, irreparable: Path, tmp_path: Path
) -> None:
    again = emb.json("build", str(irreparable), *OWN, "--target", "rpi3b-plus", "--output", "in-float")
    assert again["cached"]
    assert again["repairs"] == repaired["repairs"]
    # A user's word instead of a target, and an empty cache.
    arguments = (*OWN, "--keep-float", "--format", "tflite", "--output", str(tmp_path / "fresh"), "--json")
    fresh = json.loads(emb.run("build", str(irreparable), *arguments, EMB_CACHE_DIR=str(tmp_path / "cache")).stdout)
    digests = {row["file"]: row["sha256"] for row in repaired["rows"]}
    assert len(fresh["rows"]) > 3
    assert all(row["sha256"] == digests[row["file"]] for row in fresh["rows"])


@pytest.mark.slow
@pytest.mark.long
def test_what_others_say_of_such_a_file(repaired: dict[str, Any], emb: Any) -> None:
    build = emb.home / "in-float"
    shown = emb.run("inspect", str(build / "irreparable-int8.tflite")).stdout
    assert "in float32, between a DEQUANTIZE and a QUANTIZE: above_1/Relu, down_1/add" in shown
    placements = emb.json("check", str(build / "irreparable-int8.tflite"), "--target", "coral-usb-rpi4", expect=1)
    devices = {one["operation"].split("/")[1].split(";")[0]: one["device"] for one in placements["placements"][4:7]}
    assert set(devices.values()) == {"cpu"}
    refused = emb.run("bundle", str(build), "--target", "rpi4", "--output", "bundled", expect=2).stderr
    assert "irreparable-int8.tflite cannot be bundled for rpi4" in refused
    assert "up, down compute in float32, which is not the same bits everywhere" in refused
    refused = emb.run("inspect", str(build), "--quantization-error", expect=2).stderr
    assert "irreparable-int8.tflite is not int8 throughout" in refused


@pytest.mark.slow
@pytest.mark.long
def test_a_layer_that_integers_cannot_compute(emb: Any, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Rescaling(1 / 255, name="unit")(image)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, name="second")(x)
    x = keras.layers.Flatten(name="flat")(keras.layers.Activation("softsign", name="odd")(x))
    keras.Model(image, keras.layers.Dense(10, activation="softmax", name="scores")(x)).save(tmp_path / "odd.keras")
    # The network is not trained, and what it says by chance moves with every rounding.
    arguments = ("build", str(tmp_path / "odd.keras"), *OWN[:-3], "int8", "--max-drop", "5", "--keep-float")
    report = emb.json(*arguments, "--output", str(tmp_path / "built"))
    (repair,) = report["repairs"]
    assert "ABS writes" in repair["first_failure"]
    assert repair["float_layers"] == {"layers": ["odd"], "macs_share": 0.0, "added_bytes": None}
    graph = read(tmp_path / "built" / "odd-int8.tflite")
    floats = [one for one in graph.operations if graph.tensors[one.outputs[0]].is_float]
    assert {one.kind for one in floats} == {"DEQUANTIZE", "ABS", "ADD", "DIV"}
    assert {row["format"] for row in report["rows"] if row["scheme"] == "int8"} == {"tflite", "onnx"}
    assert all(row["agreement"] > 0.8 for row in report["rows"])
