"""Which kernel of an operation a quantized TFLite graph needs: its version, and for int16 sums the general one.

ai-edge-quantizer leaves the float model's versions and flags. tflite-runtime 2.14 then runs a kernel that reads only
the first of a dense layer's per-channel scales, without a word.
Source: tflite/tools/versioning/op_version.cc of google-ai-edge/LiteRT.
"""

from __future__ import annotations

from typing import Any

from emb.graph.flatbuffer import builtin_code, operation_name, operator_code, type_name

_WEIGHTED = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}
# By the version that brought the type; operations that are not listed had it from the beginning.
_INT8_SINCE_2 = """
    MAX_POOL_2D AVERAGE_POOL_2D SOFTMAX LOGISTIC TANH MEAN PAD PADV2 MIRROR_PAD CONCATENATION ADD SUB MUL MAXIMUM
    MINIMUM RELU TRANSPOSE TRANSPOSE_CONV SLICE STRIDED_SLICE SPLIT PACK UNPACK GATHER RSQRT RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR BATCH_MATMUL SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND REDUCE_MAX RELU6
"""
_INT16_SINCE_3 = """
    MAX_POOL_2D AVERAGE_POOL_2D SOFTMAX LOGISTIC TANH MEAN PAD PADV2 CONCATENATION ADD RELU RSQRT PACK BATCH_MATMUL
"""
_INT16_SINCE_4 = "MUL MAXIMUM MINIMUM SLICE SPLIT RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR"
_INT8 = _WEIGHTED | dict.fromkeys(_INT8_SINCE_2.split(), 2)
_INT16 = _WEIGHTED | dict.fromkeys(_INT16_SINCE_3.split(), 3) | dict.fromkeys(_INT16_SINCE_4.split(), 4)
_INT16 |= {"SUB": 5, "TRANSPOSE": 5, "LEAKY_RELU": 2, "REDUCE_MAX": 3}
_HYBRID = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 12}
_HYBRID_PER_TENSOR = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 3}


def raise_versions(model: Any) -> None:
    """Give every operation at least the version that its tensors' types need; edits the schema ModelT in place."""
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            _allow_any_scale(operator)
            code = model.operatorCodes[operator.opcodeIndex]
            needed = _needed(model, subgraph, operator)
            if code.customCode or needed <= code.version:
                continue
            operator.opcodeIndex = operator_code(model, builtin=builtin_code(code), version=needed)
    _drop_unused_codes(model)


def _allow_any_scale(operator: Any) -> None:
    """An int16 ADD or SUB takes its scales for powers of two unless this flag says otherwise."""
    if hasattr(operator.builtinOptions, "potScaleInt16"):
        operator.builtinOptions.potScaleInt16 = False


def _needed(model: Any, subgraph: Any, operator: Any) -> int:
    inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
    if not inputs or len(operator.outputs) == 0:
        return 1
    operation = operation_name(model, operator)
    types = {type_name(tensor) for tensor in inputs}
    result = type_name(subgraph.tensors[operator.outputs[0]])
    if operation == "QUANTIZE":
        return 2 if result == "INT16" else 1
    if operation == "DEQUANTIZE":
        return 3 if "FLOAT16" in types else 2
    if result == "FLOAT32" and len(inputs) > 1 and type_name(inputs[1]) == "INT8":
        per_channel = len(inputs[1].quantization.scale) > 1
        return (_HYBRID if per_channel else _HYBRID_PER_TENSOR).get(operation, 1)
    if result == "INT16" and "INT16" in types:
        return _INT16.get(operation, 1)
    if result == "INT8" and "INT8" in types:
        return max(_INT8.get(operation, 1), _scaling_up(operation, subgraph, operator))
    return 1


def _scaling_up(operation: str, subgraph: Any, operator: Any) -> int:
    """3 for a MUL whose product of input scales exceeds the output's, which older kernels reject."""
    if operation != "MUL":
        return 1
    first, second = (subgraph.tensors[index].quantization.scale[0] for index in operator.inputs)
    return 3 if first * second >= subgraph.tensors[operator.outputs[0]].quantization.scale[0] else 1


def _drop_unused_codes(model: Any) -> None:
    used = sorted({operator.opcodeIndex for subgraph in model.subgraphs for operator in subgraph.operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    position = {index: place for place, index in enumerate(used)}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            operator.opcodeIndex = position[operator.opcodeIndex]
