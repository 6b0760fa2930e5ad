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
        names = [writers[name].input[1] for name in node.input if name in writers] + list(scales)
        return [chosen.get(_tensor(name)) or _code(held, name) for name in names]

    for quantizer in quantizers:
        total = writers.get(quantizer.input[0])
        if total is None or total.op_type not in ("Add", "Mul"):
            continue
        scale = quantizer.input[1]
        if total.op_type == "Mul":
            found = alike_product_code(*codes_at(total, scale))
            # A sum that follows may still choose another one.
            chosen |= {_tensor(scale): found} if found and found != _code(held, scale) else {}
            continue
        terms = [writers[name].input[1] for name in total.input]
        codes = codes_at(total, scale)
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


def _code(held: Mapping[str, Any], scale: str) -> Code:
    from onnx import numpy_helper

    zero_point = held[scale.removesuffix(_SCALE) + "_zero_point"]
    return Code(
        scale=float(numpy_helper.to_array(held[scale]).item()),
        zero_point=int(numpy_helper.to_array(zero_point).item()),
    )


def _tensor(scale: str) -> str:
    return scale.removesuffix(_SCALE)
