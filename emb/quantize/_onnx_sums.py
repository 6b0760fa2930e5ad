"""Scales with which ONNX Runtime adds and multiplies tensors to the same bits everywhere; see emb.graph.sums.

Works on a graph in QDQ form, whose scales are constants called after their tensors. A sum both of whose terms have
codes that others decided (the totals of other sums, a constant, the input) finds none, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from emb.graph.sums import Code, alike_codes, alike_product_code, is_alike, is_product_alike
from emb.quantize._onnx_graph import constants
from emb.quantize._ranges import Range

_SCALE = "_scale"
# What writes a tensor in any scale that is asked for, and decides no other tensor's.
_FREE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul")


def codes_of_sums(graph: Any) -> dict[str, Code]:
    """{tensor: code} of what sums and products need another code for than it has; `graph` is ordered."""
    held = constants(graph)
    writers = {name: node for node in graph.node for name in node.output}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    # A pooling has the scale of what it reads, so that the first to write in a scale decides it.
    made_by = {node.input[1]: writers.get(node.input[0]) for node in reversed(quantizers)}
    chosen: dict[str, Code] = {}
    settled: set[str] = set()

    def codes_at(node: Any, *scales: str) -> list[Code]:
        """Of both inputs and of `scales`; empty where one of them is no uint8 tensor with one scale."""
        inputs = [writers[name] for name in node.input if name in writers]
        names = [source.input[1] for source in inputs if source.op_type == "DequantizeLinear"]
        codes = [chosen.get(_tensor(name)) or _code(held, name) for name in (*names, *scales)]
        known = [code for code in codes if code is not None]
        return known if len(known) == 2 + len(scales) else []

    for quantizer in quantizers:
        total, scale = writers.get(quantizer.input[0]), quantizer.input[1]
        codes = codes_at(total, scale) if total is not None and total.op_type in ("Add", "Mul") else []
        if not codes:
            continue
        if total.op_type == "Mul":
            found = alike_product_code(*codes)
            if found is not None and found != codes[2]:
                chosen[_tensor(scale)] = found  # a sum that follows may still choose another one
            continue
        terms = [writers[name].input[1] for name in total.input]
        free = [place for place, term in enumerate(terms) if term not in settled and _is_free(made_by.get(term))]
        if free and scale not in settled and not is_alike(*codes):
            place = free[-1]
            maker = made_by[terms[place]]
            factors = codes_at(maker) if maker.op_type == "Mul" else []

            def accepts(code: Code, factors: list[Code] = factors) -> bool:
                return not factors or is_product_alike(*factors, code)

            pair = alike_codes(codes[1 - place], codes[place], codes[2], accepts=accepts)
            if pair is not None:
                chosen[_tensor(terms[place])], chosen[_tensor(scale)] = pair
        settled |= {*terms, scale}
    return chosen


def ranges_of(codes: Mapping[str, Code]) -> dict[str, Range]:
    """The real numbers that the codes can hold."""
    return {
        name: Range(lowest=-code.zero_point * code.scale, highest=(255 - code.zero_point) * code.scale)
        for name, code in codes.items()
    }


def write_codes(graph: Any, codes: Mapping[str, Code]) -> None:
    """Put the scales in, which a quantizer that is given their ranges meets but for the last bit."""
    from onnx import numpy_helper

    for name, tensor in constants(graph).items():
        code = codes.get(_tensor(name)) if name.endswith(_SCALE) else None
        if code is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.array(code.scale, np.float32), name))


def _is_free(maker: Any) -> bool:
    return maker is not None and maker.op_type in _FREE


def _code(held: Mapping[str, Any], scale: str) -> Code | None:
    from onnx import numpy_helper

    zero_point = held.get(_tensor(scale) + "_zero_point")
    if scale not in held or zero_point is None:
        return None
    values, zeros = numpy_helper.to_array(held[scale]), numpy_helper.to_array(zero_point)
    if values.size != 1 or zeros.dtype != np.uint8:
        return None
    return Code(scale=float(values.item()), zero_point=int(zeros.item()))


def _tensor(scale: str) -> str:
    return scale.removesuffix(_SCALE)
