"""Writes a float .onnx in the number formats of a scheme: ranges of ours, QDQ by ONNX Runtime, border by us.

uint8 activations with int8 weights are what ONNX Runtime's CPU kernels fuse completely; int8 activations fuse in part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError
from emb.quantize import _onnx_graph as og
from emb.quantize._calibration import checked_images
from emb.quantize._known import KnownRange, moments, recognized
from emb.quantize._onnx_border import check_integer_only, quantized_input, uint8_border, with_activations
from emb.quantize._onnx_limits import limits_to_stand_ins, stand_ins_to_limits
from emb.quantize._onnx_names import shorten
from emb.quantize._onnx_packing import pack_pixels
from emb.quantize._onnx_rewrite import (
    global_pools_to_pools,
    means_to_global_pools,
    normalizations_to_convolutions,
    tanh_ranges,
    tanh_to_sigmoid,
)
from emb.quantize._onnx_sums import codes_of_sums, ranges_of, write_codes
from emb.quantize._onnx_tables import functions_to_stand_ins, stand_ins_to_tables
from emb.quantize._ranges import Activations, Range, calibrate, input_code
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def quantize(
    float_path: Path,
    out_path: Path,
    *,
    scheme: Scheme,
    calibration: NDArray[np.generic] | None,
    method: str,
    pixels: Pixels,
    known: Sequence[KnownRange],
    kept: frozenset[str],
    lanes: int,
    maps: int,
) -> int:
    """See emb.quantize.quantize_onnx."""
    if "onnx" not in scheme.formats:
        raise ExportError(
            f"the scheme {scheme.name} does not exist for ONNX",
            why="ONNX Runtime's CPU kernels would compute it in float32",
            fix="choose int8 for ONNX, or the TFLite format",
        )
    model = og.load(float_path)
    _check_float(model, float_path)
    packed = 0
    if scheme.calibrated:
        model = _static(model, calibration, scheme=scheme, method=method, pixels=pixels, known=known, kept=kept)
        packed = pack_pixels(model, lanes=lanes, maps=maps or 1) if lanes else 0
        shorten(model.graph)
    elif scheme.weights == "float16":
        _weights_to_float16(model)
    elif scheme.weights == "int8":
        model = _dynamic(model)
    model.producer_name, model.producer_version = "emb", ""
    out_path.write_bytes(model.SerializeToString(deterministic=True))
    return packed


def _static(
    model: Any,
    calibration: NDArray[np.generic] | None,
    *,
    scheme: Scheme,
    method: str,
    pixels: Pixels,
    known: Sequence[KnownRange],
    kept: frozenset[str],
) -> Any:
    model = means_to_global_pools(og.prepared(model))
    global_pools_to_pools(model)
    kept = with_activations(model.graph, kept) - {output.name for output in model.graph.output}
    normalizations_to_convolutions(model, kept=kept)
    value = og.model_input(model.graph)
    images = _calibration_input(calibration, og.shape_of(value), scheme=scheme, pixels=pixels)

    def run() -> Iterator[Activations]:
        return og.activations(model, images)

    ranges = calibrate(run, method=method, levels=256)
    if known:
        ranges |= recognized(known, moments(run()))
    ranges |= tanh_ranges(model, kept=kept)
    ranges[value.name] = input_code(pixels, lowest=0).range(lowest=0, highest=255)
    limits = limits_to_stand_ins(model, ranges, kept=kept)
    functions = functions_to_stand_ins(model, kept=kept)
    with _without_log():
        model = _with_equal_sums(model, ranges, kept=kept)
    stand_ins_to_tables(model.graph, functions)
    stand_ins_to_limits(model.graph, limits)
    tanh_to_sigmoid(model.graph, kept=kept)
    quantized_input(model.graph, ranges[value.name])
    og.order(model.graph)
    check_integer_only(model.graph, scheme, kept=kept)
    uint8_border(model.graph)
    _drop_shapes(model.graph)
    return model


def _calibration_input(
    calibration: NDArray[np.generic] | None, shape: tuple[int, ...], *, scheme: Scheme, pixels: Pixels
) -> NDArray[np.float32]:
    """The images as the model takes them; ONNX files come with channels first or last."""
    if og.is_channels_last(shape):
        return checked_images(calibration, scheme=scheme, shape=shape[1:], pixels=pixels)
    height_width_channels = (shape[2], shape[3], shape[1])
    images = checked_images(calibration, scheme=scheme, shape=height_width_channels, pixels=pixels)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _with_equal_sums(model: Any, ranges: dict[str, Range], *, kept: frozenset[str]) -> Any:
    """The model in QDQ form, its sums with the same bits on every processor wherever scales for that are found."""
    quantized = _with_qdq(og.copied(model), ranges, kept=kept)
    og.order(quantized.graph)
    codes = codes_of_sums(quantized.graph)
    if codes:
        # Once more from the start, so that biases and what shares a scale follow.
        quantized = _with_qdq(model, ranges | ranges_of(codes), kept=kept)
        write_codes(quantized.graph, codes)
    return quantized


def _with_qdq(model: Any, ranges: dict[str, Range], *, kept: frozenset[str]) -> Any:
    """The model with a QuantizeLinear and a DequantizeLinear around every operation, weights per channel.

    kept: names of the first outputs of operations that are left as they are.
    Not through quantize_static, which would run the calibration itself, from and to files.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    data = {
        name: TensorData(lowest=np.float32(entry.lowest), highest=np.float32(entry.highest))
        for name, entry in ranges.items()
    }
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=[node.name for node in model.graph.node if node.output[0] in kept],
            op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
            # MaxPool, Reshape and the like that read the input come before any quantized operation.
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        return quantizer.quantize_model()
    except Exception as error:
        raise ExportError(
            "the ONNX model could not be quantized",
            why=f"onnxruntime: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            fix="replace the layer behind the operation that is named, or choose dynamic or float16",
        ) from error


def _dynamic(model: Any) -> Any:
    """8-bit weights; uint8 for convolutions, whose int8 kernel (ConvInteger) is two to three times slower."""
    from onnxruntime.quantization import QuantizationMode, QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    model = og.prepared(model)
    with _without_log():
        quantizer = ONNXQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QUInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(IntegerOpsRegistry),
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
    model = quantizer.model.model
    og.order(model.graph)
    _drop_shapes(model.graph)
    return model


def _weights_to_float16(model: Any) -> None:
    """Store float constants in 16 bits, each behind a Cast that ONNX Runtime computes once, when it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    # A large model has hundreds of constants of one name and a number, so that name_16 may be another one's.
    taken = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 2:
            continue
        if np.abs(values).max() > LARGEST_FLOAT16:
            raise ExportError(
                f"{tensor.name} does not fit into 16-bit floats",
                why=f"its largest value is {np.abs(values).max():g}, that of float16 is {LARGEST_FLOAT16:g}",
                fix="choose float32 or dynamic",
            )
        wide = tensor.name
        narrow, cast = (og.free_name(f"{wide}_{suffix}", taken) for suffix in ("float16", "cast"))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), narrow))
        casts.append(helper.make_node("Cast", [narrow], [wide], name=cast, to=TensorProto.FLOAT))
    nodes = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _check_float(model: Any, path: Path) -> None:
    import onnx

    value = og.model_input(model.graph)
    quantized = [node.op_type for node in model.graph.node if "Linear" in node.op_type or "Integer" in node.op_type]
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or quantized:
        dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        raise ModelError(
            f"{path.name} is no float32 model",
            why=f"it holds {quantized[0]}" if quantized else f"its input {value.name} is {dtype}",
            fix="give the float32 model that it was made from",
        )
    shape = og.shape_of(value)
    if len(shape) != 4 or 0 in shape or shape[0] != 1:
        raise ModelError(
            f"{path.name} takes inputs of shape {shape}, where 0 is a size that is not fixed",
            why="a deployed graph is static and takes one image",
            fix="export the model with batch size 1 and a fixed height and width",
        )


def _drop_shapes(graph: Any) -> None:
    """Inferred shapes and types of inner tensors: every reader infers them again, and they cost bytes."""
    del graph.value_info[:]


@contextmanager
def _without_log() -> Iterator[None]:
    """ONNX Runtime's quantizer logs advice on its own functions to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
