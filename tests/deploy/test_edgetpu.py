"""The limits of the Edge TPU one by one, and the one partition that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from emb.deploy import edgetpu
from emb.deploy.edgetpu import DATA_TYPE, MAPPED, RANK, SECOND_SUBGRAPH, UNSPECIFIED, UNSUPPORTED, predict, status_of
from emb.errors import ModelError
from emb.graph.model import Graph, Operation, Tensor

MAP = (1, 8, 8, 4)


def one(
    kind: str,
    *,
    data: tuple[int, ...] = MAP,
    output: tuple[int, ...] = MAP,
    constants: tuple[tuple[tuple[int, ...], str], ...] = (),
    more: int = 0,
    dtype: str = "int8",
    **options: Any,
) -> Graph:
    """A graph of one operation. constants: shape and dtype of each, behind the data and `more` inputs like it."""
    inputs = [Tensor(name=f"data{number}", shape=data, dtype=dtype) for number in range(1 + more)]
    held = [
        Tensor(name=f"constant{number}", shape=shape, dtype=kept, constant=True)
        for number, (shape, kept) in enumerate(constants)
    ]
    tensors = (*inputs, *held, Tensor(name="output", shape=output, dtype=dtype))
    operation = Operation(
        kind=kind,
        name=kind.lower(),
        native=kind,
        inputs=tuple(range(len(tensors) - 1)),
        outputs=(len(tensors) - 1,),
        options=options,
    )
    return Graph(
        name="one",
        format="tflite",
        layout="NHWC",
        tensors=tensors,
        operations=(operation,),
        inputs=tuple(range(len(inputs))),
        outputs=(len(tensors) - 1,),
    )


def said(graph: Graph) -> tuple[str, str]:
    return status_of(graph, graph.operations[0])


KERNEL = ((4, 3, 3, 4), "int8")
BIAS = ((4,), "int32")
AXES = ((1,), "int32")

GOOD = {
    "convolution": one("CONV_2D", constants=(KERNEL, BIAS), dilation=(1, 1), groups=1),
    "dilated alike": one("CONV_2D", constants=(KERNEL, BIAS), dilation=(2, 2)),
    "pooling": one("MAX_POOL_2D"),
    "concatenation": one("CONCATENATION", more=2),
    "addition with fused ReLU": one("ADD", more=1, activation="RELU"),
    "mean over the map": one("MEAN", output=(1, 4), constants=(AXES,), axes=(1, 2)),
    "mean over four channels": one("MEAN", output=(1, 8, 8), constants=(AXES,), axes=(3,)),
    "padding": one("PAD", output=(1, 10, 10, 4), constants=(((4, 2), "int32"),)),
    "dense": one("FULLY_CONNECTED", data=(1, 256), output=(1, 10), constants=(((10, 256), "int8"), ((10,), "int32"))),
    "softmax": one("SOFTMAX", data=(1, 16_000), output=(1, 16_000)),
    "squeeze in front": one("SQUEEZE", data=(1, 1, 8, 4), output=(8, 4)),
    "padded channels": one("PAD", output=(1, 8, 8, 8), constants=(((4, 2), "int32"),)),
    "packed rows": one("PACK", more=1, data=(1, 8, 4), output=(1, 2, 8, 4)),
    "largest of the map": one("REDUCE_MAX", output=(1, 4), constants=(AXES,), axes=(1, 2)),
    "smallest of the map": one("REDUCE_MIN", output=(1, 4), constants=(AXES,), axes=(1, 2)),
    "enlarged": one("RESIZE_BILINEAR", output=(1, 16, 16, 4), constants=(((2,), "int32"),)),
    "enlarged, nearest": one("RESIZE_NEAREST_NEIGHBOR", output=(1, 16, 16, 4), constants=(((2,), "int32"),)),
    "depthwise": one("DEPTHWISE_CONV_2D", constants=(KERNEL, BIAS), dilation=(2, 2)),
    "average": one("AVERAGE_POOL_2D"),
    "slice": one("STRIDED_SLICE", constants=(AXES, AXES, AXES), strides=(1, 1, 1, 1)),
    "slopes of channels": one("PRELU", constants=(((1, 1, 4), "int8"),)),
    "unsigned": one("RELU", dtype="uint8"),
}

BAD = {
    "float": (
        one("RELU", dtype="float32"),
        DATA_TYPE,
        "Activations and weights must be int8 or uint8: data0 is float32",
    ),
    "int16": (one("ADD", more=1, dtype="int16"), DATA_TYPE, "data0 is int16"),
    "rank": (one("RELU", data=(2, 8, 8, 4), output=(2, 8, 8, 4)), RANK, "data0 is 2x8x8x4"),
    "open shape": (one("RELU", data=(1, -1, 8, 4)), UNSPECIFIED, "data0 has an open shape"),
    "uneven dilation": (one("CONV_2D", constants=(KERNEL, BIAS), dilation=(1, 2)), UNSPECIFIED, "1 and 2"),
    "uneven dilation, depthwise": (
        one("DEPTHWISE_CONV_2D", constants=(KERNEL, BIAS), dilation=(2, 1)),
        UNSPECIFIED,
        "2 and 1",
    ),
    "groups": (one("CONV_2D", constants=(((4, 3, 3, 2), "int8"), BIAS), groups=2), UNSPECIFIED, "2 groups"),
    "flowing weights": (one("CONV_2D", more=1, constants=(BIAS,)), UNSPECIFIED, "data1 is computed"),
    "fused pooling": (one("AVERAGE_POOL_2D", activation="RELU"), UNSPECIFIED, "fused activation: RELU"),
    "fused concatenation": (one("CONCATENATION", more=1, activation="RELU6"), UNSPECIFIED, "RELU6"),
    "fused largest": (one("MAX_POOL_2D", activation="RELU6"), UNSPECIFIED, "fused activation: RELU6"),
    # Of zeros it would be mapped; what a constant holds is not in the graph.
    "concatenation with one constant": (
        one("CONCATENATION", constants=((MAP, "int8"),)),
        UNSPECIFIED,
        "2 inputs, constant0 is constant",
    ),
    "concatenation with constants": (
        one("CONCATENATION", more=1, constants=((MAP, "int8"),)),
        UNSPECIFIED,
        "3 inputs, constant0 is constant",
    ),
    "shuffled weights": (
        one("FULLY_CONNECTED", data=(1, 256), output=(1, 10), constants=(((10, 256), "int8"),), weights_format=1),
        UNSPECIFIED,
        "format 1",
    ),
    "dense over positions": (
        one("FULLY_CONNECTED", data=(1, 8, 256), output=(1, 8, 10), constants=(((10, 256), "int8"),)),
        UNSPECIFIED,
        "1x8x10",
    ),
    "large softmax": (one("SOFTMAX", data=(1, 16_001), output=(1, 16_001)), UNSPECIFIED, "16,001 elements"),
    "softmax of a map": (one("SOFTMAX", data=(1, 8, 4), output=(1, 8, 4)), UNSPECIFIED, "1x8x4"),
    "mean over the batch": (one("MEAN", output=(8, 8, 4), constants=(AXES,), axes=(0,)), UNSPECIFIED, "the axis 0"),
    "mean over three channels": (
        one("MEAN", data=(1, 8, 8, 3), output=(1, 8, 8), constants=(AXES,), axes=(-1,)),
        UNSPECIFIED,
        "3 channels",
    ),
    "padded batch": (
        one("PAD", data=(1, 4), output=(3, 4), constants=(((2, 2), "int32"),)),
        UNSPECIFIED,
        "1 becomes 3",
    ),
    "packed batch": (one("PACK", more=2, data=(1, 4), output=(3, 1, 4)), UNSPECIFIED, "1 becomes 3"),
    "packed batch of lines": (one("PACK", more=2, data=(4,), output=(3, 4)), UNSPECIFIED, "4 becomes 3"),
    "largest of the batch": (
        one("REDUCE_MAX", output=(8, 8, 4), constants=(AXES,), axes=(0, 1)),
        UNSPECIFIED,
        "the axis 0",
    ),
    "smallest of the batch": (
        one("REDUCE_MIN", output=(8, 8, 4), constants=(AXES,), axes=(0,)),
        UNSPECIFIED,
        "the axis 0",
    ),
    "enlarged stack": (
        one("RESIZE_BILINEAR", data=(2, 8, 8, 4), output=(2, 16, 16, 4), constants=(((2,), "int32"),)),
        RANK,
        "data0 is 2x8x8x4",
    ),
    "squeeze behind": (one("SQUEEZE", data=(1, 8, 1, 4), output=(8, 4)), UNSPECIFIED, "1x8x1x4 becomes 8x4"),
    "strides": (
        one("STRIDED_SLICE", constants=(AXES, AXES, AXES), strides=(1, 2, 1, 1)),
        UNSPECIFIED,
        "strides (1, 2, 1, 1)",
    ),
    "ellipsis": (one("STRIDED_SLICE", strides=(1,), ellipsis_mask=2), UNSPECIFIED, "ellipsis_mask"),
    "new axis": (one("STRIDED_SLICE", strides=(1,), new_axis_mask=1), UNSPECIFIED, "new_axis_mask"),
    "slopes of positions": (one("PRELU", constants=(((8, 8, 4), "int8"),)), UNSPECIFIED, "8x8x4"),
    "no such operation": (one("RSQRT"), UNSUPPORTED, ""),
    "LRN": (one("LOCAL_RESPONSE_NORMALIZATION", dtype="float32"), UNSUPPORTED, ""),
}


# Kinds that Coral's table lists without a limit of their own, and what they do to an 8x8x4 map.
UNLIMITED = {
    "LOGISTIC": {}, "RELU": {}, "RELU6": {}, "RELU_N1_TO_1": {}, "TANH": {}, "L2_NORMALIZATION": {}, "QUANTIZE": {},
    "ADD": {"more": 1}, "SUB": {"more": 1}, "MUL": {"more": 1}, "MAXIMUM": {"more": 1}, "MINIMUM": {"more": 1},
    "RESHAPE": {"output": (1, 256)}, "SLICE": {"output": (1, 8, 8, 2)}, "SPLIT": {"output": (1, 8, 8, 2)},
    "SPACE_TO_DEPTH": {"output": (1, 4, 4, 16)}, "EXPAND_DIMS": {"data": (8, 4), "output": (1, 8, 4)},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": {"data": (1, 8, 4), "output": (1, 8, 4)},
}  # fmt: skip

# What no list names, among it all that normalizes responses, divides, or turns axes around.
UNKNOWN_KINDS = (
    "RSQRT", "SQRT", "POW", "SQUARE", "DIV", "EXP", "LOCAL_RESPONSE_NORMALIZATION", "L2_POOL_2D", "TRANSPOSE",
    "LEAKY_RELU", "ELU", "HARD_SWISH", "GATHER", "DEQUANTIZE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CUSTOM",
)  # fmt: skip


@pytest.mark.parametrize("kind", UNLIMITED)
def test_what_has_no_limit_of_its_own_is_mapped_and_must_be_of_8_bits(kind: str) -> None:
    assert said(one(kind, **UNLIMITED[kind])) == (MAPPED, "")
    assert said(one(kind, **UNLIMITED[kind], dtype="float32"))[0] == DATA_TYPE


@pytest.mark.parametrize("kind", UNKNOWN_KINDS)
def test_what_no_list_names_is_not_supported(kind: str) -> None:
    assert said(one(kind)) == (UNSUPPORTED, "")


def test_every_kind_that_the_prediction_maps_is_mapped_by_some_test() -> None:
    tested = {graph.operations[0].kind for graph in GOOD.values()} | set(UNLIMITED)
    assert set(edgetpu.LIMITS) == tested


@pytest.mark.parametrize("graph", GOOD.values(), ids=GOOD)
def test_what_is_mapped(graph: Graph) -> None:
    assert said(graph) == (MAPPED, "")


@pytest.mark.parametrize(("graph", "status", "found"), BAD.values(), ids=BAD)
def test_what_is_not(graph: Graph, status: str, found: str) -> None:
    got, detail = said(graph)
    assert got == status
    assert detail.endswith(found)


def test_every_limit_is_a_sentence_and_is_broken_by_some_test() -> None:
    limits = {limit for kept in edgetpu.LIMITS.values() for limit in kept}
    limits |= {edgetpu.eight_bit_tensors, edgetpu.three_inner_dimensions, edgetpu.static_shapes}
    sentences = {(limit.__doc__ or "").split("\n")[0] for limit in limits}
    assert all(sentence and not sentence.endswith(".") for sentence in sentences)
    broken = {said(graph)[1].split(": ")[0] for graph, _, _ in BAD.values()} - {""}
    assert sentences - {sentence for sentence in sentences for text in broken if sentence.startswith(text)} == set()


def chain(*kinds: str) -> Graph:
    """Operations one behind the other, each a convolution with 4 biases or one that needs no weights."""
    tensors = [Tensor(name="image", shape=MAP, dtype="int8")]
    operations = []
    flowing = 0
    for number, kind in enumerate(kinds):
        inputs = [flowing]
        if kind == "CONV_2D":
            inputs += [len(tensors), len(tensors) + 1]
            tensors.append(Tensor(name=f"kernel{number}", shape=KERNEL[0], dtype="int8", constant=True))
            tensors.append(Tensor(name=f"bias{number}", shape=(4,), dtype="int32", constant=True))
        tensors.append(Tensor(name=f"map{number}", shape=MAP, dtype="int8"))
        flowing = len(tensors) - 1
        name = f"{kind.lower()}{number}"
        operations.append(Operation(kind=kind, name=name, native=kind, inputs=tuple(inputs), outputs=(flowing,)))
    return Graph(
        name="chain",
        format="tflite",
        layout="NHWC",
        tensors=tuple(tensors),
        operations=tuple(operations),
        inputs=(0,),
        outputs=(flowing,),
    )


def test_whatever_stands_behind_the_first_that_is_not_mapped_runs_on_the_cpu() -> None:
    mapping = predict(chain("CONV_2D", "RELU", "RSQRT", "CONV_2D", "ELU", "RELU"))
    assert [(placement.device, placement.status) for placement in mapping.placements] == [
        ("edge-tpu", MAPPED),
        ("edge-tpu", MAPPED),
        ("cpu", UNSUPPORTED),
        ("cpu", SECOND_SUBGRAPH),
        ("cpu", UNSUPPORTED),
        ("cpu", SECOND_SUBGRAPH),
    ]
    assert mapping.mapped == 2
    assert mapping.first_on_cpu is not None
    assert mapping.first_on_cpu.operation == "rsqrt2"


def test_parameters_of_the_mapped_part_alone_want_the_cache() -> None:
    """Each kernel has 4 * 3 * 3 * 4 bytes, each of the 4 biases takes 8."""
    assert predict(chain("CONV_2D", "CONV_2D")).parameter_bytes == 2 * (144 + 4 * 8)
    assert predict(chain("CONV_2D", "RSQRT", "CONV_2D")).parameter_bytes == 144 + 4 * 8
    assert predict(chain("RSQRT", "CONV_2D")).parameter_bytes == 0


def test_all_of_it() -> None:
    assert predict(chain("CONV_2D", "RELU")).first_on_cpu is None


def test_other_formats_are_refused() -> None:
    graph = chain("RELU")
    onnx = Graph(
        name="model.onnx",
        format="onnx",
        layout="NCHW",
        tensors=graph.tensors,
        operations=graph.operations,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
    with pytest.raises(ModelError) as caught:
        predict(onnx)
    assert str(caught.value) == (
        "model.onnx is no .tflite file\n"
        "  why: the Edge TPU's compiler reads nothing else\n"
        "  fix: give the int8 .tflite of the same model"
    )
