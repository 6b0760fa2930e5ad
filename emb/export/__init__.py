"""Writes the float32 .tflite and .onnx of a model and reads files' borders back; opens other people's models.

Knows no quantization scheme: what these modules write, emb.quantize turns into every other number format.
"""

from emb.export._converter import printing_to_log

__all__ = ["printing_to_log"]
