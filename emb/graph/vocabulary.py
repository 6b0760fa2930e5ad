"""What is known about the kinds of operations: which multiply, which only view, which leave every position alone.

A kind that stands in no set here is not guessed at: its multiplications and its receptive field are unknown.
"""

from __future__ import annotations

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"})
"""One multiplication per weight and output position."""

TRANSPOSED_CONVOLUTIONS = frozenset({"TRANSPOSE_CONV"})
"""One multiplication per weight and input position."""

WEIGHTED = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | {"FULLY_CONNECTED"}
"""Operations with (data, weights, bias), the weights being constant in an ordinary model."""

PRODUCTS = WEIGHTED | {"BATCH_MATMUL"}
"""All whose multiply-accumulate operations are counted."""

POOLINGS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"})

REDUCTIONS = frozenset(
    {"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL", "ARG_MAX", "ARG_MIN"}
)

RESAMPLINGS = frozenset(
    {"RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "RESIZE_BICUBIC", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"}
)

REPRESENTATIONS = frozenset({"QUANTIZE", "DEQUANTIZE", "FAKE_QUANT", "CAST"})
"""The same values in another number format."""

VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "IDENTITY", "BITCAST"})
"""The same bytes under another shape: no memory of their own is needed."""

ACTIVATIONS = frozenset(
    {
        "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "CLIP", "LEAKY_RELU", "PRELU", "ELU", "SELU", "GELU",
        "SILU", "HARD_SWISH", "HARD_SIGMOID", "LOGISTIC", "TANH", "SOFTPLUS", "SOFTSIGN", "SOFTMAX", "LOG_SOFTMAX",
    }
)  # fmt: skip

PREPROCESSING = frozenset({"MUL", "ADD", "SUB", "DIV", "RESCALING", "NORMALIZATION"})
"""What scales pixels when it stands before the first weighted operation; a learned scale or shift behind it."""

POSITIONWISE = (
    REPRESENTATIONS
    | VIEWS
    | ACTIVATIONS
    | PREPROCESSING
    | frozenset(
        {
            "ABS", "ADD_N", "BATCH_NORMALIZATION", "BROADCAST_TO", "CEIL", "CONCATENATION", "COS", "DENSIFY", "EQUAL",
            "EXP", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "L2_NORMALIZATION",
            "LAYER_NORMALIZATION", "LESS", "LESS_EQUAL", "LOCAL_RESPONSE_NORMALIZATION", "LOG", "LOGICAL_AND",
            "LOGICAL_NOT", "LOGICAL_OR", "MAXIMUM", "MINIMUM", "MIRROR_PAD", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2",
            "POW", "RECIPROCAL", "ROUND", "RSQRT", "SELECT", "SELECT_V2", "SHAPE", "SIGN", "SIN", "SLICE", "SPLIT",
            "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "TRANSPOSE", "UNPACK", "ZEROS_LIKE",
        }
    )
)  # fmt: skip
"""Each output position depends on one position of each input; crops and paddings count as such."""

COUNTED = PRODUCTS | POOLINGS | REDUCTIONS | RESAMPLINGS | POSITIONWISE | {"GATHER", "TILE", "EMBEDDING_LOOKUP"}
"""Kinds whose multiply-accumulate operations are known: as counted for PRODUCTS, none for the others."""
