"""Writes a float .tflite in the number formats of a scheme: ranges of ours, graph by ai-edge-quantizer, border by us.

Knows no Keras model and no runtime but the interpreter that calibration runs on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import EmbError, ExportError, ModelError
from emb.graph import flatbuffer as fb
from emb.quantize._calibration import checked_images
from emb.quantize._known import KnownRange, moments, recognized
from emb.quantize._large_kernels import large_kernels_as_matrices
from emb.quantize._op_versions import raise_versions
from emb.quantize._ranges import Activations, Range, calibrate, input_code, input_code_16
from emb.quantize._tflite_activations import activations
from emb.quantize._tflite_float16 import weights_to_float16
from emb.quantize._tflite_islands import beside, close_islands
from emb.quantize._tflite_limits import limits_to_integers
from emb.quantize._tflite_packing import pack_pixels
from emb.quantize._tflite_parts import drop_unused_buffers
from emb.quantize._tflite_uint8 import uint8_border
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme


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
    """See emb.quantize.quantize_tflite."""
    if "tflite" not in scheme.formats:
        raise ExportError(f"the scheme {scheme.name} does not exist for TFLite", fix="choose another scheme")
    model = fb.load(float_path)
    _check_float(model, float_path)
    packed = 0
    if scheme.calibrated:
        shape = tuple(int(size) for size in model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape)
        images = checked_images(calibration, scheme=scheme, shape=shape[1:], pixels=pixels)
        subgraph = model.subgraphs[0]
        kept -= {fb.tensor_name(subgraph.tensors[index]) for index in subgraph.outputs}
        model = _static(model, float_path, images, scheme=scheme, method=method, pixels=pixels, known=known, kept=kept)
        packed = pack_pixels(model, lanes=lanes, maps=maps or 1) if lanes else 0
    elif scheme.weights == "float16":
        weights_to_float16(model)
    elif scheme.weights == "int8":
        # A factor for each channel, such as of a normalization, would cost rounding its input, and save a few bytes.
        recipe = [*_recipe("dynamic_wi8_afp32"), *_left_out(model.subgraphs[0], _of_one_tap(model))]
        model = _by_recipe(float_path.read_bytes(), recipe, None)
    _finish(model)
    if scheme.io == "uint8":
        uint8_border(model)
    if scheme.integer_only:
        _check_integer_only(model, scheme, kept=beside(model, kept))
    out_path.write_bytes(fb.pack(model))
    return packed


def _static(
    model: Any,
    path: Path,
    images: NDArray[np.float32],
    *,
    scheme: Scheme,
    method: str,
    pixels: Pixels,
    known: Sequence[KnownRange],
    kept: frozenset[str],
) -> Any:
    subgraph = model.subgraphs[0]
    ranks = {
        fb.tensor_name(tensor): max(1, len(tensor.shape))
        for tensor in subgraph.tensors
        if fb.type_name(tensor) == "FLOAT32" and not fb.is_constant(model, tensor)
    }

    def run() -> Iterator[Activations]:
        return activations(path, images, frozenset(ranks))

    is_16 = scheme.activations == "int16"
    levels = 65_536 if is_16 else 256
    ranges = calibrate(run, method=method, levels=levels, symmetric=is_16)
    if known:
        ranges |= recognized(known, moments(run()))
    code = input_code_16(pixels) if is_16 else input_code(pixels, lowest=-128)
    bounds = (-32_767, 32_767) if is_16 else (-128, 127)
    input_name = fb.tensor_name(subgraph.tensors[subgraph.inputs[0]])
    ranges[input_name] = code.range(lowest=bounds[0], highest=bounds[1])
    limits_to_integers(model, ranges, levels=levels, bits=scheme.weight_bits or 8, kept=kept)
    statistics = {name: _statistics(ranges[name], rank=rank) for name, rank in ranks.items() if name in ranges}
    recipe = _recipe("static_wi8_ai16" if is_16 else "static_wi8_ai8")
    if scheme.weight_bits == 4:
        recipe = _with_4_bits(recipe)
    quantized = _by_recipe(fb.pack(model), [*recipe, *_left_out(subgraph, kept)], statistics)
    close_islands(quantized, kept=kept)
    return quantized


def without_integer_form(float_path: Path) -> frozenset[str]:
    """See emb.quantize.without_integer_form."""
    model = fb.load(float_path)
    _check_float(model, float_path)
    subgraph = model.subgraphs[0]
    # What stays float does not depend on the ranges.
    statistics = {
        fb.tensor_name(tensor): _statistics(Range(lowest=-1.0, highest=1.0), rank=max(1, len(tensor.shape)))
        for tensor in subgraph.tensors
        if fb.type_name(tensor) == "FLOAT32" and not fb.is_constant(model, tensor)
    }
    quantized = _by_recipe(float_path.read_bytes(), _recipe("static_wi8_ai8"), statistics)
    close_islands(quantized)
    tensors = quantized.subgraphs[0].tensors
    return frozenset(
        fb.tensor_name(tensors[operator.outputs[0]])
        for operator in quantized.subgraphs[0].operators
        if fb.operation_name(quantized, operator) != "DEQUANTIZE"
        and fb.type_name(tensors[operator.outputs[0]]).startswith("FLOAT")
    )


def int8_except(float_path: Path, ranges: Mapping[str, Range], *, kept: Collection[str]) -> bytes:
    """The content of a static int8 .tflite in which some operations compute in float32.

    ranges: of every float tensor, by name.  kept: names of the first outputs of the operations that stay float.
    """
    model = fb.load(float_path)
    subgraph = model.subgraphs[0]
    ranks = {fb.tensor_name(tensor): max(1, len(tensor.shape)) for tensor in subgraph.tensors}
    chosen = dict(ranges)
    limits_to_integers(model, chosen, levels=256, bits=8, kept=kept)
    statistics = {name: _statistics(found, rank=ranks[name]) for name, found in chosen.items()}
    recipe = [*_recipe("static_wi8_ai8"), *_left_out(subgraph, kept)]
    quantized = _by_recipe(fb.pack(model), recipe, statistics)
    close_islands(quantized, kept=kept)
    _finish(quantized)
    return fb.pack(quantized)


def _of_one_tap(model: Any) -> frozenset[str]:
    """Names of what depthwise convolutions of 1x1 write, one map from each channel."""
    tensors = model.subgraphs[0].tensors
    return frozenset(
        fb.tensor_name(tensors[operator.outputs[0]])
        for operator in model.subgraphs[0].operators
        if fb.operation_name(model, operator) == "DEPTHWISE_CONV_2D"
        and list(tensors[operator.inputs[1]].shape) == [1, 1, 1, tensors[operator.inputs[0]].shape[-1]]
    )


def _left_out(subgraph: Any, kept: Collection[str]) -> list[dict[str, str]]:
    """The entries of a recipe by which operations stay float. kept: names of their first outputs."""
    entries = []
    for operator in subgraph.operators:
        names = [fb.tensor_name(subgraph.tensors[index]) for index in operator.outputs]
        if names[0] in kept:
            # ai-edge-quantizer knows an operation by the names of its outputs, each with a semicolon behind it.
            scope = re.escape("".join(f"{name};" for name in names))
            entries.append({"regex": f"^{scope}$", "operation": "*", "algorithm_key": "no_quantize"})
    return entries


def _statistics(tensor_range: Range, *, rank: int) -> dict[str, NDArray[np.float32]]:
    """ai-edge-quantizer wants minimum and maximum of the tensor's rank; in 32 bits its scales are the converter's."""
    shape = (1,) * rank
    return {
        "min": np.full(shape, tensor_range.lowest, np.float32),
        "max": np.full(shape, tensor_range.highest, np.float32),
    }


def _recipe(name: str) -> Any:
    from ai_edge_quantizer import recipe

    return getattr(recipe, name)()


def _with_4_bits(recipe: Any) -> Any:
    """Weights of 4 bits beside integer activations, for which there is no ready recipe; the kernels are LiteRT's.

    A depthwise convolution has no such kernel and keeps 8.
    """
    (entry,) = recipe
    weights = {**entry["op_config"]["weight_tensor_config"], "num_bits": 4}
    narrow = {**entry, "op_config": {**entry["op_config"], "weight_tensor_config": weights}}
    return [narrow, {**entry, "operation": "DEPTHWISE_CONV_2D"}]


def _by_recipe(content: bytes, recipe: Any, statistics: Any) -> Any:
    """The quantized model. Not through ai-edge-quantizer's Quantizer, which would run the model once more, aloud."""
    from ai_edge_quantizer.model_modifier import ModelModifier
    from ai_edge_quantizer.params_generator import ParamsGenerator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import read_model

    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    try:
        with warnings.catch_warnings(), large_kernels_as_matrices():
            warnings.simplefilter("ignore")
            model = read_model(memoryview(content))
            parameters = ParamsGenerator(model).generate_quantization_parameters(manager, statistics, False)
            return fb.unpack(bytes(ModelModifier(model).modify_model(parameters)))
    except EmbError:
        raise
    except Exception as error:
        raise ExportError(
            "the TFLite model could not be quantized",
            why=f"ai-edge-quantizer: {_first_line(error)}",
            fix="replace the layer behind the operation that is named, or choose float16",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_float(model: Any, path: Path) -> None:
    if len(model.subgraphs) != 1:
        raise ModelError(
            f"{path.name} has {len(model.subgraphs)} subgraphs",
            why="control flow (IF, WHILE) becomes subgraphs of their own, which emb does not quantize",
            fix="export the model without branches and loops",
        )
    integers = {"INT8", "UINT8", "INT16", "FLOAT16", "INT4"}
    for tensor in model.subgraphs[0].tensors:
        if fb.type_name(tensor) in integers:
            raise ModelError(
                f"{path.name} is quantized already",
                why=f"its tensor {fb.tensor_name(tensor)} is {fb.type_name(tensor).lower()}",
                fix="give the float32 model that it was made from",
            )


def _finish(model: Any) -> None:
    raise_versions(model)
    # What is left of the converter's notes describes the float model, and no runtime reads it.
    model.metadata = None
    model.metadataBuffer = None
    model.description = b"emb"
    drop_unused_buffers(model)
    subgraph = model.subgraphs[0]
    for index in subgraph.outputs:
        tensor = subgraph.tensors[index]
        # TensorFlow calls every function's output so.
        if fb.tensor_name(tensor) == "Identity":
            tensor.name = b"scores"


def _check_integer_only(model: Any, scheme: Scheme, *, kept: frozenset[str]) -> None:
    """kept: names of the first outputs of the operations that were to stay float."""
    subgraph = model.subgraphs[0]
    floats = [one for one in subgraph.operators if fb.tensor_name(subgraph.tensors[one.outputs[0]]) in kept]
    widened = {int(index) for operator in floats for index in operator.inputs}
    others = [one for one in subgraph.operators if one not in floats]
    for operator in others:
        widened -= {int(index) for index in operator.inputs}
    faults = [
        f"{fb.operation_name(model, operator)} writes {fb.tensor_name(subgraph.tensors[index])} as float32"
        for operator in others
        for index in operator.outputs
        if fb.type_name(subgraph.tensors[index]).startswith("FLOAT")
        and not (fb.operation_name(model, operator) == "DEQUANTIZE" and int(index) in widened)
    ]
    if faults:
        raise ExportError(
            f"the {scheme.name} TFLite model keeps float tensors",
            why="\n       ".join(faults),
            fix="replace the layers behind these operations, or choose dynamic or float16",
        )
