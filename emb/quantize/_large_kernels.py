"""Mends ai-edge-quantizer 0.10 for convolution kernels over 32 MiB, such as OverFeat's. Chooses no scale.

It quantizes large tensors in parts, as if all were matrices, and fails on a 4-D one: "input operand has more dimensions
than allowed by the axis remapping" (uniform_quantize_tensor.uniform_quantize).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

# From here on it works in parts.
_LARGE_BYTES = 32 * 1024 * 1024


@contextlib.contextmanager
def large_kernels_as_matrices() -> Iterator[None]:
    """Within the block, ai-edge-quantizer gets a large kernel, scaled along its first axis, as a matrix."""
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as module

    original = module.uniform_quantize

    def quantize(tensor_data: Any, quantization_params: Any, is_blockwise_quant: bool = False) -> Any:
        is_large = tensor_data.ndim > 2 and tensor_data.nbytes > _LARGE_BYTES
        if is_blockwise_quant or not is_large or quantization_params.quantized_dimension not in (None, 0):
            return original(tensor_data, quantization_params, is_blockwise_quant)
        per_row = dataclasses.replace(
            quantization_params,
            scale=quantization_params.scale.reshape(-1, 1),
            zero_point=quantization_params.zero_point.reshape(-1, 1),
        )
        return original(tensor_data.reshape(len(tensor_data), -1), per_row).reshape(tensor_data.shape)

    module.uniform_quantize = quantize
    try:
        yield
    finally:
        module.uniform_quantize = original
