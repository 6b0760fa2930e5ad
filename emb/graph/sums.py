"""Sums and products of uint8 tensors in ONNX Runtime: which have the same bits everywhere. Reads and writes no file.

Its kernel for x86-64 adds in float32 and rounds what lies half-way to the even integer; that for arm64 adds in 32-bit
integers, with 22 bits of each ratio of scales, and rounds away from zero. The two agree where both are exact and no sum
of the 65,536 that there are lies half-way, or where the two rules happen to say the same. Scales can be chosen so.
A product is computed in float32 on both, but arm64 adds the zero point without rounding the product before, which
tells the difference where that rounding meets a half.
Source: MLAS, qladd.cpp, qladd_avx2.cpp and qlmul.cpp, ONNX Runtime 1.32; the products' difference was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.graph.model import Graph, Quantization, consumers, producers

_HIGHEST = 255
_SIGNIFICAND_BITS = 24
_STEPS_BY_WIDENING = 0.01
_NEIGHBOURS = 4
_PRODUCT_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """real = (stored - zero_point) * scale, stored in 0..255.  scale: a float32 value, above 0."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (self.scale > 0 and float(np.float32(self.scale)) == self.scale and 0 <= self.zero_point <= _HIGHEST):
            raise ValueError(f"no uint8 code: scale {self.scale!r}, zero point {self.zero_point}")


def is_alike(first: Code, second: Code, total: Code) -> bool:
    """Whether `first` + `second` = `total` has the same bits on x86-64 and arm64, whatever the 8-bit values are."""
    ratios = _quotient(first.scale, total.scale), _quotient(second.scale, total.scale)
    bits = _fraction_bits(*ratios)
    steps = [ratio * 2**bits for ratio in ratios]
    if not all(step.is_integer() and step >= 1 for step in steps):
        return False
    return _rounds_alike(int(steps[0]), int(steps[1]), bits, (first, second, total))


def is_product_alike(first: Code, second: Code, total: Code) -> bool:
    """Whether `first` * `second` = `total` has the same bits on x86-64 and arm64, whatever the 8-bit values are."""
    stored = np.arange(_HIGHEST + 1)
    products = np.unique(np.outer(stored - first.zero_point, stored - second.zero_point))
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(total.scale)
    rounded_twice = products.astype(np.float32) * ratio + np.float32(total.zero_point)
    rounded_once = (products * np.float64(ratio) + total.zero_point).astype(np.float32)
    return np.array_equal(_saturated(np.rint(rounded_twice)), _saturated(np.rint(rounded_once)))


def alike_product_code(first: Code, second: Code, total: Code) -> Code | None:
    """A code for `total`, at most 0.1 % wider, with which the product is alike; None if none is found."""
    for step in range(_PRODUCT_STEPS):
        wider = Code(
            scale=float(np.float32(total.scale * (1 + step / 1000 / _PRODUCT_STEPS))), zero_point=total.zero_point
        )
        if is_product_alike(first, second, wider):
            return wider
    return None


def alike_codes(
    fixed: Code, free: Code, total: Code, *, accepts: Callable[[Code], bool] = lambda code: True
) -> tuple[Code, Code] | None:
    """Codes for `free` and `total`, near theirs, with which `fixed` + `free` = `total` is alike; None if none is found.

    Both may get scales up to 1 % wider, never narrower: what they could hold they can hold still.
    accepts: whether `free` may get a code.
    """
    bits = _fraction_bits(_quotient(fixed.scale, total.scale), _quotient(free.scale, total.scale))
    # One bit less than fits, as wider scales may need it.
    one = 2 ** (bits - 1)
    highest = int(fixed.scale / total.scale * one)
    for step in range(highest, int(highest * (1 - _STEPS_BY_WIDENING)), -1):
        scale = _with_quotient(step / one, near=fixed.scale * one / step, dividend=fixed.scale) if step else None
        if scale is None:
            continue
        wider = Code(scale=scale, zero_point=total.zero_point)
        lowest = ceil(free.scale / scale * one)
        for other in range(lowest, int(lowest * (1 + _STEPS_BY_WIDENING)) + 1):
            if _rounds_alike(step, other, bits - 1, (fixed, free, wider)):
                scale_of_free = _with_quotient(other / one, near=other / one * scale, divisor=scale)
                found = None if scale_of_free is None else Code(scale=scale_of_free, zero_point=free.zero_point)
                if found is not None and accepts(found):
                    return found, wider
    return None


def all_alike(graph: Graph) -> bool:
    """Whether all sums and products in the graph of an int8 .onnx file have the same bits on x86-64 and arm64."""
    checks = {"ADD": is_alike, "MUL": is_product_alike}
    return all(
        codes is not None and check(*codes) for kind, check in checks.items() for codes in _codes_of(graph, kind)
    )


def _codes_of(graph: Graph, kind: str) -> Iterator[tuple[Code, Code, Code] | None]:
    """The codes of both inputs and the output of each operation of a kind; None where they cannot be told."""
    made_by, read_by = producers(graph), consumers(graph)
    for operation in graph.operations:
        if operation.kind != kind:
            continue
        places = [_stored(graph, index, [made_by[index]] if index in made_by else []) for index in operation.inputs]
        places += [_stored(graph, operation.outputs[0], read_by.get(operation.outputs[0], ()))]
        codes = [code for code in (_code(graph.tensors[place].quantization) for place in places) if code is not None]
        yield (codes[0], codes[1], codes[2]) if len(codes) == len(places) == 3 else None


def _stored(graph: Graph, index: int, neighbours: Iterable[int]) -> int:
    """The integer tensor behind a float one of a QDQ graph: beyond the one QUANTIZE or DEQUANTIZE beside it."""
    for place in neighbours:
        operation = graph.operations[place]
        if operation.kind == "DEQUANTIZE":
            return operation.inputs[0]
        if operation.kind == "QUANTIZE":
            return operation.outputs[0]
    return index


def _code(quantization: Quantization | None) -> Code | None:
    """None where it is no uint8 tensor with one scale."""
    if quantization is None or quantization.axis is not None or not 0 <= quantization.zero_points[0] <= _HIGHEST:
        return None
    return Code(scale=float(np.float32(quantization.scales[0])), zero_point=quantization.zero_points[0])


def _rounds_alike(first: int, second: int, bits: int, codes: tuple[Code, Code, Code]) -> bool:
    """Of the ratios first / 2**bits and second / 2**bits, both of which are exact in either kernel."""
    stored = np.arange(_HIGHEST + 1)
    real = first * (stored - codes[0].zero_point)[:, np.newaxis] + second * (stored - codes[1].zero_point)
    zero, half = codes[2].zero_point, 2 ** (bits - 1)
    away = np.where(real < 0, -((-real + half) >> bits), (real + half) >> bits) + zero
    moved = real + (zero << bits)
    even = (moved + half) >> bits
    even -= ((moved & (2 * half - 1)) == half) & (even & 1 == 1)
    return np.array_equal(_saturated(away), _saturated(even))


def _saturated(values: NDArray[Any]) -> NDArray[Any]:
    return np.clip(values, 0, _HIGHEST)


def _fraction_bits(first: float, second: float) -> int:
    """How many binary places the ratios may have, so that every partial sum of the float kernel is exact."""
    return _SIGNIFICAND_BITS - ceil(log2(_HIGHEST * (1 + first + second)))


def _quotient(dividend: float, divisor: float) -> float:
    """As the kernels compute it, in float32."""
    return float(np.float32(dividend) / np.float32(divisor))


def _with_quotient(
    wanted: float, *, near: float, dividend: float | None = None, divisor: float | None = None
) -> float | None:
    """The float32 nearest to `near` that, as the missing one of dividend and divisor, gives `wanted` to the bit."""
    up = down = np.float32(near)
    for _ in range(_NEIGHBOURS):
        for candidate in (up, down):
            quotient = _quotient(
                float(candidate) if dividend is None else dividend, float(candidate) if divisor is None else divisor
            )
            if quotient == wanted:
                return float(candidate)
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(0))
    return None
