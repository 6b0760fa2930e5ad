"""The same network read from every format, and the values of a graph."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import ModelError
from emb.graph import files, tflite
from emb.graph import keras as keras_graph
from emb.graph.cost import cost
from emb.graph.dump import dump
from emb.graph.model import Graph, Operation, Tensor, consumers, producers

Golden = Callable[[str, str], None]

LENET_FILES = (
    "lenet-float32.tflite",
    "lenet-float16.tflite",
    "lenet-int8.tflite",
    "lenet-uint8.tflite",
    "lenet-open-batch.tflite",
    "lenet-float32.onnx",
    "lenet-int8-qdq.onnx",
    "lenet-int8-qoperator.onnx",
)
# By hand: positions of the output, times the weights that each of its channels sees.
LENET_MACS = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize("name", LENET_FILES)
def test_lenet_costs_the_same_in_every_file(models: Path, name: str) -> None:
    total = cost(files.read(models / name))
    assert total.parameters == 61_706
    assert total.macs == LENET_MACS == 416_520
    assert total.uncounted == ()


def test_lenet_costs_the_same_in_keras(lenet: Any) -> None:
    total = cost(keras_graph.read(lenet))
    assert total.parameters == 61_706 == lenet.count_params()
    assert total.macs == LENET_MACS


@pytest.mark.parametrize("name", LENET_FILES)
def test_receptive_field_of_lenet(models: Path, name: str) -> None:
    graph = files.read(models / name)
    total = cost(graph)
    fields = [
        tuple(map(int, (*row.field.pixels, *row.field.jump)))
        for operation, row in zip(graph.operations, total.operations, strict=True)
        if row.field is not None and operation.kind in {"CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED"}
    ]
    # 5x5, 2x2 pooling twice, then the whole of the 5x5 map: 16 + 4 * 4 = the 32 of the padded image
    expected = [(5, 5, 1, 1), (6, 6, 2, 2), (14, 14, 2, 2), (16, 16, 4, 4)] + [(32, 32, 4, 4)] * 3
    assert fields == expected


def test_tflite_int8_holds_scales_and_constants(models: Path) -> None:
    graph = tflite.read(models / "lenet-int8.tflite")
    (entry,) = graph.inputs
    pixels = graph.tensors[entry]
    assert (pixels.name, pixels.shape, pixels.dtype, pixels.constant) == ("pixels", (1, 28, 28, 1), "int8", False)
    assert pixels.quantization is not None
    # int8 = uint8 - 128, but for the calibration images' own largest value
    assert pixels.quantization.scales == (pytest.approx(1.0, abs=0.01),)
    assert pixels.quantization.zero_points == (-128,)
    conv = graph.operations[0]
    assert (conv.kind, conv.options["kernel"], conv.options["padding"]) == ("CONV_2D", (5, 5), "SAME")
    weights = graph.tensors[conv.inputs[1]]
    assert weights.constant
    assert weights.quantization is not None
    assert (len(weights.quantization.scales), weights.quantization.axis) == (6, 0)
    assert weights.storage_bytes == 150


def test_tflite_agrees_with_the_interpreter(models: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    for name in ("lenet-int8.tflite", "mixed-int8.tflite", "mixed-float32.tflite"):
        graph = tflite.read(models / name)
        interpreter = Interpreter(
            str(models / name), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        interpreter.allocate_tensors()
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        for index, tensor in enumerate(graph.tensors):
            assert tensor.shape == tuple(details[index]["shape"]), tensor.name
            assert tensor.dtype == np.dtype(details[index]["dtype"]).name
            scales = tensor.quantization.scales if tensor.quantization else ()
            assert scales == tuple(details[index]["quantization_parameters"]["scales"].tolist())
        assert list(graph.inputs) == [detail["index"] for detail in interpreter.get_input_details()]
        assert list(graph.outputs) == [detail["index"] for detail in interpreter.get_output_details()]


def test_open_batch_is_seen_and_counts_as_one(models: Path) -> None:
    graph = tflite.read(models / "lenet-open-batch.tflite")
    entry = graph.tensors[graph.inputs[0]]
    assert entry.shape == (-1, 28, 28, 1)
    assert entry.elements == 28 * 28


def test_mixed_network_costs_the_same_in_keras_and_tflite(mixed: Any, models: Path) -> None:
    of_keras = cost(keras_graph.read(mixed))
    assert of_keras.parameters == mixed.count_params()
    positions = 16 * 16
    by_hand = (
        positions * 8 * 27  # stem
        + positions * 8 * 9  # depthwise
        + positions * (8 * 9 + 8 * 8)  # separable
        + 8 * 8 * 8 * 8 * 25  # left
        + 8 * 8 * 16 * 4 * 9  # transposed: each input position meets every weight
        + 14 * 14 * 8 * 9 * 2  # grouped: 2 of the 4 channels
        + 8 * 5
    )
    assert of_keras.macs == by_hand
    for name in ("mixed-float32.tflite", "mixed-int8.tflite"):
        of_file = cost(tflite.read(models / name))
        assert of_file.macs == by_hand
        # Batch normalization folds: 4 values a channel become the bias of the convolution before it. The
        # depthwise step of the separable convolution gets a bias of zeros.
        assert of_file.parameters == of_keras.parameters - 4 * 8 + 8 + 8


def test_keras_options_and_vocabulary(mixed: Any) -> None:
    graph = keras_graph.read(mixed)
    by_name = {operation.name: operation for operation in graph.operations}
    assert by_name["grouped"].options["groups"] == 2
    assert by_name["left"].options == {
        "kernel": (5, 5),
        "stride": (2, 2),
        "dilation": (1, 1),
        "padding": "SAME",
        "groups": 1,
    }
    assert by_name["mean"].options == {"axes": (1, 2), "keep_dims": False}
    assert by_name["separable/pointwise"].options["activation"] == "RELU"
    assert by_name["drop"].kind == "IDENTITY"
    assert by_name["transposed"].kind == "TRANSPOSE_CONV"
    assert by_name["transposed"].inputs[0] == -1
    assert graph.layout == "NHWC"


def test_keras_models_inside_of_models_are_walked_through() -> None:
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", name="shared")])
    image = keras.Input((8, 8, 4))
    outer = keras.Model(image, layers.Flatten()(inner(inner(image))), name="outer")
    graph = keras_graph.read(outer)
    assert [operation.kind for operation in graph.operations] == ["CONV_2D", "CONV_2D", "RESHAPE"]
    assert graph.operations[1].inputs[0] == graph.operations[0].outputs[0]
    total = cost(graph)
    assert total.parameters == outer.count_params() == 4 * 4 * 9 + 4
    assert total.macs == 2 * 8 * 8 * 4 * 4 * 9
    assert int(total.operations[1].field.pixels[0]) == 5


def test_keras_subclassed_model_is_refused() -> None:
    import keras

    class Own(keras.Model):
        pass

    with pytest.raises(ModelError) as caught:
        keras_graph.read(Own(name="own"))
    assert str(caught.value) == (
        "the Keras model 'own' has no graph of layers\n"
        "  why: it is a subclassed model, or a Sequential one without an input shape\n"
        "  fix: build it from keras.Input with the functional API or keras.Sequential"
    )


@pytest.mark.golden
@pytest.mark.parametrize(
    "name", ["lenet-int8.tflite", "mixed-float32.tflite", "lenet-float32.onnx", "lenet-int8-qdq.onnx"]
)
def test_dump(models: Path, golden: Golden, name: str) -> None:
    golden(f"{name}.txt", dump(files.read(models / name)))


@pytest.mark.golden
def test_dump_of_keras(mixed: Any, golden: Golden) -> None:
    golden("mixed.keras.txt", dump(keras_graph.read(mixed)))


def test_other_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        files.read(tmp_path / "model.pt")
    assert str(caught.value) == (
        f"{tmp_path}/model.pt is neither a .tflite nor an .onnx file\n"
        "  why: the suffix decides how a model file is read\n"
        "  fix: give a file that ends in .tflite or .onnx"
    )


def test_reading_files_imports_neither_tensorflow_nor_keras(models: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from emb.graph import files; "
        "[files.read(Path(name)) for name in sys.argv[1:]]; "
        "print([name for name in ('tensorflow', 'keras', 'onnxruntime') if name in sys.modules])"
    )
    names = [str(models / "lenet-int8.tflite"), str(models / "lenet-int8-qdq.onnx")]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_producers_and_consumers(models: Path) -> None:
    graph = tflite.read(models / "mixed-int8.tflite")
    residual = next(o for o in graph.operations if o.kind == "ADD")
    number = graph.operations.index(residual)
    readers = consumers(graph)[residual.outputs[0]]
    assert producers(graph)[residual.outputs[0]] == number
    assert sorted(graph.operations[reader].kind for reader in readers) == ["CONV_2D", "MAX_POOL_2D"]


def _graph(*operations: Operation, tensors: int) -> Graph:
    return Graph(
        name="made",
        format="tflite",
        layout="NHWC",
        tensors=tuple(Tensor(name=f"t{i}", shape=(1, 4), dtype="int8") for i in range(tensors)),
        operations=operations,
        inputs=(0,),
        outputs=(tensors - 1,),
    )


def _relu(source: int, target: int) -> Operation:
    return Operation(kind="RELU", name=f"relu{target}", native="RELU", inputs=(source,), outputs=(target,))


@pytest.mark.parametrize(
    ("operations", "why"),
    [
        ([_relu(0, 7)], "relu7 refers to tensor 7 of 3"),
        ([_relu(-2, 1)], "relu1 refers to tensor -2 of 3"),
        ([_relu(0, 1), _relu(0, 1)], "relu1 writes a tensor that is written already"),
        ([_relu(1, 2), _relu(0, 1)], "relu2 reads a tensor before it is written"),
        ([_relu(1, 1)], "relu1 reads a tensor before it is written"),
        (
            [Operation(kind="CONV_2D", name="c", native="CONV_2D", inputs=(0, -1), outputs=(1,))],
            "CONV_2D c has too few inputs",
        ),
        (
            [Operation(kind="MEAN", name="m", native="MEAN", inputs=(0,), outputs=())],
            "MEAN m has no output",
        ),
    ],
)
def test_a_graph_refuses_what_cannot_run(operations: list[Operation], why: str) -> None:
    with pytest.raises(ModelError) as caught:
        _graph(*operations, tensors=3)
    assert caught.value.what == "made is not a valid model"
    assert caught.value.why == why


def test_bytes_of_packed_and_unknown_tensors() -> None:
    assert Tensor(name="w", shape=(3, 3), dtype="int4").storage_bytes == 5
    assert Tensor(name="s", shape=(), dtype="float32").storage_bytes == 4
    assert Tensor(name="b", shape=(-1, 7), dtype="int16").storage_bytes == 14
    assert Tensor(name="h", shape=(1, -1, 7), dtype="int16").storage_bytes is None
    assert Tensor(name="r", shape=None, dtype="int8").storage_bytes is None
    assert Tensor(name="t", shape=(2,), dtype="string").storage_bytes is None
