"""Reads from an .onnx file what ONNX Runtime does not tell: the quantization of its input and output tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emb.graph.onnx import read
from emb.spec.contract import TensorContract


def border_quantization(
    path: Path, model_input: TensorContract, model_output: TensorContract
) -> tuple[TensorContract, TensorContract]:
    """The two contracts with scale and zero point, taken from the file where the tensor is an integer one.

    An integer tensor that no DequantizeLinear reads and no QuantizeLinear writes holds the values themselves, and
    stays without a scale. Raises ModelError if the file cannot be read.
    """
    if model_input.dtype.startswith("float") and model_output.dtype.startswith("float"):
        return model_input, model_output
    known = {tensor.name: tensor.quantization for tensor in read(path).tensors}

    def quantized(tensor: TensorContract) -> TensorContract:
        quantization = known.get(tensor.name)
        if tensor.dtype.startswith("float") or quantization is None or len(quantization.scales) != 1:
            return tensor
        return replace(tensor, scale=quantization.scales[0], zero_point=quantization.zero_points[0])

    return quantized(model_input), quantized(model_output)
