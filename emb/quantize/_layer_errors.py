"""Compares an int8 .tflite with the float one that it was made of, layer by layer. Fetches no image, knows no Keras.

Two errors are told apart. The accumulated one is that of the layer's output when the whole model runs in int8. The own
one is what the layer adds by itself: the int8 layer and the float layer both get the float model's activations, rounded
to the integers that the layer is given; only its weights and the rounding of what it gives differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.errors import DataError, ModelError
from emb.graph import flatbuffer as fb
from emb.quantize._calibration import by
from emb.quantize._error import ErrorSums
from emb.quantize._ranges import Range
from emb.quantize._tflite import int8_except
from emb.quantize._tflite_activations import activations
from emb.quantize._tflite_packing import unpack_pixels
from emb.quantize._tflite_parts import Part, part
from emb.quantize._tflite_simulated import simulate
from emb.spec.contract import Pixels

# ai-edge-quantizer's name for a tensor's integers where it keeps a float of the same name beside them.
_INTEGERS = "_quantized"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What int8 does to one layer.

    kinds: its operations, such as CONV_2D.  accumulated: of its output when the whole model is int8; its `clipped`
    are values of the float model outside of the calibrated range.  own: what the layer adds by itself.
    """

    layer: str
    kinds: tuple[str, ...]
    accumulated: ErrorSums
    own: ErrorSums


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    """How a tensor's integers are meant: real = (stored - zero_point) * scale."""

    name: str
    scale: float
    zero_point: int

    @property
    def range(self) -> Range:
        lowest, highest = ((end - self.zero_point) * self.scale for end in (-128, 127))
        return Range(lowest=min(lowest, 0.0), highest=max(highest, 0.0))

    def stored(self, real: NDArray[np.float32]) -> NDArray[np.int8]:
        stored: NDArray[np.int8] = np.clip(np.rint(real / self.scale) + self.zero_point, -128, 127).astype(np.int8)
        return stored

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A layer as two models of its own."""

    real: Part
    integer: Part


def layer_errors(
    float_path: Path, int8_path: Path, images: NDArray[np.generic], *, layers: Sequence[str], pixels: Pixels
) -> tuple[LayerError, ...]:
    """The errors of every layer, in the order of the model.

    images: (n, height, width, channels) raw pixels.  layers: of every operation of the float file, the layer that it
    belongs to; "" for what is no layer.  pixels: how the model's real input follows from a pixel.
    Raises ModelError if the int8 file was not made of the float one, or is not int8 throughout.
    """
    real_model, int8_model = fb.load(float_path), fb.load(int8_path)
    unpack_pixels(int8_model, real_model)
    _require_fit(images, real_model)
    codes = _codes(real_model, int8_model, int8_path)
    labels = _labels_of_int8(real_model, int8_model, layers)
    pairs = {
        layer: _Pair(real=part(real_model, _places(layers, layer)), integer=part(int8_model, _places(labels, layer)))
        for layer in dict.fromkeys(filter(None, layers))
    }
    pairs = {layer: pair for layer, pair in pairs.items() if pair.real.inputs and pair.real.outputs}
    sums = _compared(float_path, int8_path, images, pairs=pairs, codes=codes, pixels=pixels)
    kinds = {layer: _kinds(real_model, _places(layers, layer)) for layer in pairs}
    return tuple(
        LayerError(layer=layer, kinds=kinds[layer], accumulated=accumulated, own=own)
        for layer, (accumulated, own) in sums.items()
    )


def simulate_except(float_path: Path, int8_path: Path, out_path: Path, *, kept: Sequence[bool]) -> None:
    """Write a float model that rounds as the int8 one does, but for some operations' weights and outputs.

    kept: for every operation of the float file, whether it is spared. Raises ModelError as `layer_errors`.
    """
    model, int8_model = fb.load(float_path), fb.load(int8_path)
    unpack_pixels(int8_model, model)
    tensors = {fb.tensor_name(tensor): tensor for tensor in int8_model.subgraphs[0].tensors}
    integers = {name: tensors[code.name] for name, code in _codes(model, int8_model, int8_path).items()}
    simulate(model, integers, int8_model, kept=kept)
    out_path.write_bytes(fb.pack(model))


def keep_float(float_path: Path, int8_path: Path, out_path: Path, *, kept: Sequence[bool]) -> None:
    """Write the int8 model with some operations in float32, between a DEQUANTIZE and a QUANTIZE each.

    kept: for every operation of the float file, whether it stays float. All others get the ranges that the int8 file
    has. Raises ModelError as `layer_errors`, ExportError if the model cannot be quantized so.
    """
    model = fb.load(float_path)
    ranges = {name: code.range for name, code in _codes(model, fb.load(int8_path), int8_path).items()}
    subgraph = model.subgraphs[0]
    names = [fb.tensor_name(subgraph.tensors[operator.outputs[0]]) for operator in subgraph.operators]
    chosen = frozenset(name for name, is_kept in zip(names, kept, strict=True) if is_kept)
    out_path.write_bytes(int8_except(float_path, ranges, kept=chosen))


def _require_fit(images: NDArray[np.generic], model: Any) -> None:
    subgraph = model.subgraphs[0]
    shape = tuple(int(extent) for extent in subgraph.tensors[subgraph.inputs[0]].shape)[1:]
    if not len(images) or images.shape[1:] != shape:
        raise DataError(
            f"the images are {by(images.shape[1:])}, the model takes {by(shape)}"
            if len(images)
            else "there are no images to compare the models on",
            fix="give images of the model's height, width and channels",
        )


def _compared(
    float_path: Path,
    int8_path: Path,
    images: NDArray[np.generic],
    *,
    pairs: Mapping[str, _Pair],
    codes: Mapping[str, _Code],
    pixels: Pixels,
) -> dict[str, tuple[ErrorSums, ErrorSums]]:
    """Of every layer the accumulated and the own error, summed over the images."""
    names = frozenset(name for pair in pairs.values() for name in (*pair.real.inputs, *pair.real.outputs))
    stored_names = frozenset(codes[name].name for name in names)
    reals = images.astype(np.float32) * np.float32(pixels.scale) + np.float32(pixels.offset)
    # A pixel is stored as itself minus 128, whatever the model's real input is.
    integers = (images.astype(np.int16) - 128).astype(np.int8)
    runners = {layer: (_Runner(pair.real), _Runner(pair.integer)) for layer, pair in pairs.items()}
    found: dict[str, list[tuple[ErrorSums, ErrorSums]]] = {layer: [] for layer in pairs}
    for real, stored in zip(
        activations(float_path, reals, names), activations(int8_path, integers, stored_names), strict=True
    ):
        for layer, pair in pairs.items():
            given = {name: codes[name].stored(real[name]) for name in pair.real.inputs}
            float_runner, int8_runner = runners[layer]
            exact = float_runner({name: codes[name].real(values) for name, values in given.items()})
            rounded = int8_runner({codes[name].name: values for name, values in given.items()})
            accumulated = [_sums(real[name], stored[codes[name].name], codes[name]) for name in pair.real.outputs]
            own = [_sums(exact[name], rounded[codes[name].name], codes[name]) for name in pair.real.outputs]
            found[layer].append((_joined(accumulated), _joined(own)))
    return {
        layer: (reduce(add, (one for one, _ in rows)), reduce(add, (other for _, other in rows)))
        for layer, rows in found.items()
    }


def _sums(real: NDArray[np.float32], stored: NDArray[Any], code: _Code) -> ErrorSums:
    # Half a step beyond the ends is still rounded, not clipped.
    lowest, highest = ((end - code.zero_point) * code.scale for end in (-128.5, 127.5))
    return ErrorSums.of(real, code.real(stored), lowest=lowest, highest=highest)


def _joined(outputs: Sequence[ErrorSums]) -> ErrorSums:
    """The sums over a layer's outputs, whose channels stand behind one another."""
    return ErrorSums(
        signal=np.concatenate([one.signal for one in outputs]),
        given=np.concatenate([one.given for one in outputs]),
        noise=np.concatenate([one.noise for one in outputs]),
        dot=np.concatenate([one.dot for one in outputs]),
        values=sum(one.values for one in outputs),
        clipped=sum(one.clipped for one in outputs),
    )


class _Runner:
    """A part of a model on LiteRT's own kernels: {input name: values} -> {output name: values}."""

    def __init__(self, cut: Part) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._interpreter = Interpreter(
                model_content=cut.content,
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        self._interpreter.allocate_tensors()
        self._inputs = {one["name"]: one["index"] for one in self._interpreter.get_input_details()}
        self._outputs = {one["name"]: one["index"] for one in self._interpreter.get_output_details()}

    def __call__(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, values[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


def _codes(real_model: Any, int8_model: Any, int8_path: Path) -> dict[str, _Code]:
    """Name of a float tensor -> its integers in the int8 model."""
    whole, subgraph = real_model.subgraphs[0], int8_model.subgraphs[0]
    by_name = {fb.tensor_name(tensor): tensor for tensor in subgraph.tensors}
    # The output has another name in the int8 file.
    by_name |= {
        fb.tensor_name(whole.tensors[one]): subgraph.tensors[other]
        for one, other in zip(whole.outputs, subgraph.outputs, strict=False)
    }
    codes = {}
    for tensor in whole.tensors:
        if fb.is_constant(real_model, tensor) or fb.type_name(tensor) != "FLOAT32":
            continue
        name = fb.tensor_name(tensor)
        found = next((by_name[one] for one in (name, name + _INTEGERS) if _is_int8(by_name.get(one))), None)
        if found is None:
            raise ModelError(
                f"{int8_path.name} is not the int8 form of the float model",
                why=f"it holds no int8 tensor {name}",
                fix="give the directory of a build, which holds both, or build the model again",
            )
        scale, zero_point = float(found.quantization.scale[0]), int(found.quantization.zeroPoint[0])
        codes[name] = _Code(name=fb.tensor_name(found), scale=scale, zero_point=zero_point)
    return codes


def _is_int8(tensor: Any) -> bool:
    return tensor is not None and fb.type_name(tensor) == "INT8" and tensor.quantization is not None


def _labels_of_int8(real_model: Any, int8_model: Any, layers: Sequence[str]) -> list[str]:
    """The layer of every operation of the int8 model. A change of scale belongs to the layer that needs it."""
    whole, subgraph = real_model.subgraphs[0], int8_model.subgraphs[0]
    owners = {}
    for operator, layer in zip(whole.operators, layers, strict=True):
        for index in operator.outputs:
            owners[fb.tensor_name(whole.tensors[index])] = layer
    for one, other in zip(whole.outputs, subgraph.outputs, strict=False):
        owners[fb.tensor_name(subgraph.tensors[other])] = owners[fb.tensor_name(whole.tensors[one])]
    labels: dict[int, str] = {}
    # From the end, so that who reads a change of scale is known before it.
    for place in reversed(range(len(subgraph.operators))):
        operator = subgraph.operators[place]
        name = fb.tensor_name(subgraph.tensors[operator.outputs[0]])
        if fb.operation_name(int8_model, operator) == "QUANTIZE":
            readers = [after for after in labels if operator.outputs[0] in list(subgraph.operators[after].inputs)]
            labels[place] = labels[readers[0]] if readers else ""
        else:
            labels[place] = owners.get(name) or owners.get(name.removesuffix(_INTEGERS), "")
    return [labels[place] for place in range(len(subgraph.operators))]


def _places(labels: Sequence[str], layer: str) -> frozenset[int]:
    return frozenset(place for place, label in enumerate(labels) if label == layer)


def _kinds(model: Any, places: frozenset[int]) -> tuple[str, ...]:
    operators = model.subgraphs[0].operators
    return tuple(dict.fromkeys(fb.operation_name(model, operators[place]) for place in sorted(places)))
