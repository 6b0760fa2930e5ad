"""Parameters, multiply-accumulate operations, receptive fields and memory, by hand and by direct counting."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emb.graph import tflite
from emb.graph.cost import cost, macs, operation_macs, parameters
from emb.graph.lifetime import lifetimes, live_bytes
from emb.graph.model import Graph, Operation, Tensor
from emb.graph.receptive import Field, receptive_fields


def chain(*steps: tuple[str, dict[str, Any], tuple[int, ...]], shape: tuple[int, ...], dtype: str = "int8") -> Graph:
    """A graph of operations one behind the other: (kind, options, shape of the output)."""
    shapes = [shape, *(step[2] for step in steps)]
    return Graph(
        name="chain",
        format="tflite",
        layout="NHWC",
        tensors=(
            *(Tensor(name=f"t{i}", shape=extents, dtype=dtype) for i, extents in enumerate(shapes)),
            Tensor(name="w", shape=(1, 1, 1, 1), dtype=dtype, constant=True),
        ),
        operations=tuple(
            Operation(
                kind=kind,
                name=f"o{i}",
                native=kind,
                inputs=(-1, len(shapes), i) if kind == "TRANSPOSE_CONV" else (i, len(shapes)),
                outputs=(i + 1,),
                options=options,
            )
            for i, (kind, options, _) in enumerate(steps)
        ),
        inputs=(0,),
        outputs=(len(steps),),
    )


def weighted(kind: str, *, data: tuple[int, ...], weights: tuple[int, ...], result: tuple[int, ...]) -> Graph:
    """One weighted operation with a bias."""
    inputs = (-1, 1, 0, 2) if kind == "TRANSPOSE_CONV" else (0, 1, 2)
    return Graph(
        name="one",
        format="tflite",
        layout="NHWC",
        tensors=(
            Tensor(name="x", shape=data, dtype="float32"),
            Tensor(name="w", shape=weights, dtype="float32", constant=True),
            Tensor(name="b", shape=(result[-1],), dtype="float32", constant=True),
            Tensor(name="y", shape=result, dtype="float32"),
        ),
        operations=(Operation(kind=kind, name="y", native=kind, inputs=inputs, outputs=(3,)),),
        inputs=(0,),
        outputs=(3,),
    )


def test_first_convolutions_of_alexnet() -> None:
    first = weighted("CONV_2D", data=(1, 227, 227, 3), weights=(96, 11, 11, 3), result=(1, 55, 55, 96))
    assert macs(first) == 11 * 11 * 3 * 55 * 55 * 96 == 105_415_200
    assert parameters(first) == 34_944
    grouped = weighted("CONV_2D", data=(1, 27, 27, 96), weights=(256, 5, 5, 48), result=(1, 27, 27, 256))
    assert macs(grouped) == 5 * 5 * 48 * 27 * 27 * 256 == 223_948_800
    assert parameters(grouped) == 307_456


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
def test_macs_are_the_products_of_the_loops(
    height: int, width: int, kernel: int, stride: int, groups: int, per_group: int, maps: int
) -> None:
    """Counts the innermost statement of a convolution written as loops; without padding, so all taps fall inside."""
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    if rows < 1 or columns < 1:
        return
    channels, outputs = groups * per_group, groups * maps
    counted = 0
    for _row in range(rows):
        for _column in range(columns):
            for output in range(outputs):
                group = output // maps
                for channel in range(channels):
                    if channel // per_group == group:
                        counted += kernel * kernel
    graph = weighted(
        "CONV_2D",
        data=(1, height, width, channels),
        weights=(outputs, kernel, kernel, per_group),
        result=(1, rows, columns, outputs),
    )
    assert macs(graph) == counted


def test_macs_of_a_transposed_convolution_count_input_positions() -> None:
    graph = weighted("TRANSPOSE_CONV", data=(1, 8, 8, 16), weights=(4, 3, 3, 16), result=(1, 16, 16, 4))
    assert macs(graph) == 8 * 8 * 16 * 9 * 4


def test_macs_of_what_is_unknown_are_unknown() -> None:
    graph = chain(("MY_OWN", {}, (1, 4)), ("RELU", {}, (1, 4)), shape=(1, 4))
    assert operation_macs(graph, graph.operations[0]) is None
    total = cost(graph)
    assert total.macs == 0
    assert total.uncounted == ("MY_OWN",)
    assert [row.field for row in total.operations] == [None, None]


@st.composite
def windows(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(kernel, stride, dilation) of up to five operations."""
    return draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5))


@given(windows())
def test_receptive_field_is_what_one_output_position_depends_on(layers: list[tuple[int, int, int]]) -> None:
    """Follows the dependencies of two neighbouring output positions back to the pixels."""
    first, second = {0}, {1}
    for kernel, stride, dilation in reversed(layers):
        first, second = (
            {position * stride + tap * dilation for position in reached for tap in range(kernel)}
            for reached in (first, second)
        )
    steps = [("CONV_2D", {"kernel": (k, 1), "stride": (s, 1), "dilation": (d, 1)}, (1, 9, 9, 1)) for k, s, d in layers]
    field = receptive_fields(chain(*steps, shape=(1, 99, 9, 1)))[-1]
    assert field is not None
    assert field.pixels == (max(first) - min(first) + 1, 1)
    assert field.jump == (min(second) - min(first), 1)


def test_branches_take_the_larger_field(models: Path) -> None:
    graph = tflite.read(models / "mixed-float32.tflite")
    by_kind = {
        operation.kind: field
        for operation, field in zip(graph.operations, receptive_fields(graph), strict=True)
        if operation.kind in {"MAX_POOL_2D", "CONCATENATION", "TRANSPOSE_CONV", "MEAN"}
    }
    pixels = {kind: field.pixels[0] for kind, field in by_kind.items() if field}
    # stem 3, depthwise 5, separable 7; left 7 + 4 = 11, right 7 + 2 = 9; ceil(3 / 2) = 2 taps at jump 2;
    # grouped 13 + 2 = 15, and the mean over 14 positions
    assert pixels == {"MAX_POOL_2D": 9, "CONCATENATION": 11, "TRANSPOSE_CONV": 13, "MEAN": 15 + 13}


def test_resampling_changes_the_jump() -> None:
    graph = chain(
        ("MAX_POOL_2D", {"kernel": (2, 2), "stride": (2, 2)}, (1, 4, 4, 1)),
        ("RESIZE_BILINEAR", {}, (1, 16, 16, 1)),
        ("SPACE_TO_DEPTH", {}, (1, 8, 8, 4)),
        shape=(1, 8, 8, 1),
    )
    half, one = Fraction(1, 2), Fraction(1)
    assert receptive_fields(graph) == (
        Field(pixels=(2, 2), jump=(2, 2)),
        Field(pixels=(4, 4), jump=(half, half)),
        Field(pixels=(4 + half, 4 + half), jump=(one, one)),
    )


def test_dense_layer_without_flatten_sees_its_own_position() -> None:
    pointwise = chain(("FULLY_CONNECTED", {}, (1, 6, 6, 1)), shape=(1, 6, 6, 1))
    assert receptive_fields(pointwise)[0] == Field(pixels=(1, 1), jump=(1, 1))
    whole = chain(("RESHAPE", {}, (1, 36)), ("FULLY_CONNECTED", {}, (1, 1)), shape=(1, 6, 6, 1))
    assert receptive_fields(whole)[1] == Field(pixels=(6, 6), jump=(1, 1))


def test_live_bytes_of_lenet(models: Path) -> None:
    graph = tflite.read(models / "lenet-int8.tflite")
    image, conv1, pool1 = 28 * 28, 28 * 28 * 6, 14 * 14 * 6
    conv2, pool2 = 10 * 10 * 16, 5 * 5 * 16
    assert live_bytes(graph) == (
        image + conv1,
        conv1 + pool1,
        pool1 + conv2,
        conv2 + pool2,
        pool2,  # flattening is a view
        pool2 + 120,
        120 + 84,
        84 + 10,
        10 + 10,
    )
    assert cost(graph).peak_live_bytes == conv1 + pool1 == 5_880


def test_onnx_qdq_is_charged_for_its_integers(models: Path) -> None:
    from emb.graph import onnx

    graph = onnx.read(models / "lenet-int8-qdq.onnx")
    assert cost(graph).peak_live_bytes == 5_880
    # what the caller hands in and gets back is float, and as large as that
    by_tensor = {tensor: lifetime for lifetime in lifetimes(graph) for tensor in lifetime.tensors}
    assert by_tensor[graph.inputs[0]].storage_bytes == 28 * 28 * 4
    assert by_tensor[graph.outputs[0]].storage_bytes == 10 * 4


def test_a_skip_connection_stays_alive() -> None:
    def relu(number: int, *inputs: int) -> Operation:
        kind = "ADD" if len(inputs) > 1 else "RELU"
        return Operation(kind=kind, name=f"o{number}", native=kind, inputs=inputs, outputs=(number + 1,))

    graph = Graph(
        name="skip",
        format="tflite",
        layout="NHWC",
        tensors=tuple(Tensor(name=f"t{i}", shape=(1, 10 ** min(i, 2)), dtype="int8") for i in range(5)),
        operations=(relu(0, 0), relu(1, 1), relu(2, 2), relu(3, 1, 3)),
        inputs=(0,),
        outputs=(4,),
    )
    assert live_bytes(graph) == (1 + 10, 10 + 100, 10 + 100 + 100, 10 + 100 + 100)
    assert [(lifetime.first, lifetime.last) for lifetime in lifetimes(graph)] == [
        (0, 0), (0, 3), (1, 2), (2, 3), (3, 3),
    ]  # fmt: skip


def test_memory_of_unknown_shapes_is_unknown() -> None:
    graph = chain(("RELU", {}, (1, -1)), ("RELU", {}, (1, 4)), ("RELU", {}, (1, 4)), shape=(1, 4))
    assert live_bytes(graph) == (None, None, 8)
    assert cost(graph).peak_live_bytes is None


def test_pixel_scaling_is_no_parameter() -> None:
    def elementwise(kind: str, source: int, target: int) -> Operation:
        return Operation(kind=kind, name=kind, native=kind, inputs=(source, 4), outputs=(target,))

    def dense(source: int, target: int) -> Operation:
        kind = "FULLY_CONNECTED"
        return Operation(kind=kind, name=kind, native=kind, inputs=(source, 5), outputs=(target,))

    shapes = [(1, 3)] * 4
    graph = Graph(
        name="scaled",
        format="tflite",
        layout="NHWC",
        tensors=(
            *(Tensor(name=f"t{i}", shape=shape, dtype="float32") for i, shape in enumerate(shapes)),
            Tensor(name="scale", shape=(3,), dtype="float32", constant=True),
            Tensor(name="w", shape=(3, 3), dtype="float32", constant=True),
        ),
        operations=(elementwise("MUL", 0, 1), dense(1, 2), elementwise("ADD", 2, 3)),
        inputs=(0,),
        outputs=(3,),
    )
    assert [row.parameters for row in cost(graph).operations] == [0, 9, 3]
