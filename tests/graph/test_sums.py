"""Sums of two uint8 tensors: ONNX Runtime's own kernel here, that of arm64 by its arithmetic, over all 65,536 pairs."""

from __future__ import annotations

import platform
from math import frexp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emb.graph.sums import Code, alike_codes, alike_product_code, is_alike, is_product_alike

zero_points = st.integers(0, 255)
scales = st.floats(2**-13, 2.0, width=32)
codes = st.builds(Code, scale=scales, zero_point=zero_points)


@st.composite
def sums(draw: st.DrawFn) -> tuple[Code, Code, Code]:
    """Two terms within eight times of each other, and a total that holds half to twice the wider one."""
    first = draw(codes)
    second = np.float32(first.scale * draw(st.floats(0.125, 8)))
    total = np.float32(max(first.scale, second) * draw(st.floats(0.5, 2)))
    return (
        first,
        Code(scale=float(second), zero_point=draw(zero_points)),
        Code(scale=float(total), zero_point=draw(zero_points)),
    )


def on_this_machine(first: Code, second: Code, total: Code) -> NDArray[np.uint8]:
    """(256, 256): what QLinearAdd makes of every pair."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    constants, names = [], {}
    for name, code in (("first", first), ("second", second), ("total", total)):
        names[name] = [f"{name}_scale", f"{name}_zero_point"]
        values = np.array(code.scale, np.float32), np.array(code.zero_point, np.uint8)
        constants += [numpy_helper.from_array(value, text) for value, text in zip(values, names[name], strict=True)]
    inputs = ["a", *names["first"], "b", *names["second"], *names["total"]]
    graph = helper.make_graph(
        [helper.make_node("QLinearAdd", inputs, ["c"], domain="com.microsoft")],
        "sum",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 65_536]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.UINT8, [1, 65_536])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    a, b = (grid.reshape(1, -1).astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    answer: NDArray[np.uint8] = session.run(None, {"a": a, "b": b})[0].reshape(256, 256)
    return answer


def on_arm64(first: Code, second: Code, total: Code) -> NDArray[np.int64]:
    """The same by fixed-point multipliers of 22 bits, half-way away from zero. Source: MLAS, qladd.cpp."""
    ratios = [np.float32(code.scale) / np.float32(total.scale) for code in (first, second)]
    shift = 22 - frexp(float(max(ratios)))[1]
    multipliers = [int(np.rint(float(ratio) * 2**shift)) for ratio in ratios]
    stored = np.arange(256)
    value = multipliers[0] * (stored - first.zero_point)[:, np.newaxis] + multipliers[1] * (stored - second.zero_point)
    rounded = np.sign(value) * ((np.abs(value) + 2 ** (shift - 1)) >> shift)
    return np.clip(rounded + total.zero_point, 0, 255)


@given(sums())
@settings(max_examples=40, deadline=None)
def test_codes_near_those_given_with_which_both_kernels_agree(given_codes: tuple[Code, Code, Code]) -> None:
    fixed, free, total = given_codes
    found = alike_codes(fixed, free, total)
    assert found is not None
    for old, new in zip((free, total), found, strict=True):
        assert new.zero_point == old.zero_point
        assert old.scale * (1 - 1e-7) <= new.scale <= old.scale * 1.011
    assert is_alike(fixed, *found)
    np.testing.assert_array_equal(on_this_machine(fixed, *found), on_arm64(fixed, *found))


@given(sums())
@settings(max_examples=40, deadline=None)
def test_what_is_called_alike_is(given_codes: tuple[Code, Code, Code]) -> None:
    if is_alike(*given_codes):
        np.testing.assert_array_equal(on_this_machine(*given_codes), on_arm64(*given_codes))


def code(scale: float, zero_point: int = 0) -> Code:
    return Code(scale=scale, zero_point=zero_point)


@pytest.mark.parametrize(
    ("first", "second", "total", "alike"),
    [
        pytest.param(code(1.0), code(1.0), code(1.0), True, id="integers have no halves"),
        pytest.param(code(1.0), code(1.0), code(2.0), False, id="halves"),
        pytest.param(code(1.0, 255), code(1.0, 255), code(2.0, 255), False, id="halves below an odd zero point"),
        pytest.param(code(1.0), code(1.0), code(2.0, 255), True, id="halves beyond what can be stored"),
        pytest.param(code(1.0), code(1.0), code(3.0), False, id="a third has too many places"),
    ],
)
def test_halves_decide(first: Code, second: Code, total: Code, alike: bool) -> None:
    assert is_alike(first, second, total) is alike


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the even half is what x86-64 rounds to")
def test_the_two_kernels_differ_where_it_says_so() -> None:
    one, two = code(1.0), code(2.0)
    here, there = on_this_machine(one, one, two), on_arm64(one, one, two)
    differing = np.argwhere(here != there)
    # 0.5, 2.5, 4.5 and so on: every fourth sum.
    assert len(differing) == np.sum(np.add.outer(np.arange(256), np.arange(256)) % 4 == 1)
    assert (here[0, 1], there[0, 1]) == (0, 1)


def test_a_product_whose_rounding_meets_a_half() -> None:
    """Seen: 3268 steps of 0.00596695 are 19.4999918, and with 146 added 166 on x86-64, 165 on arm64."""
    first, second = code(0.0016611923929303885, 213), code(0.3750738501548767, 212)
    total = code(0.10442015528678894, 146)
    assert not is_product_alike(first, second, total)
    found = alike_product_code(first, second, total)
    assert found is not None
    assert is_product_alike(first, second, found)
    assert total.scale < found.scale < total.scale * 1.001
    assert alike_product_code(code(0.5), code(0.5), code(0.25)) == code(0.25)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": 0.1}, {"zero_point": 256}])
def test_no_code(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no uint8 code"):
        Code(**{"scale": 0.5, "zero_point": 0, **wrong})
