"""A plain Keras model that computes in floats what its int8 file computes in integers. Writes no file.

Its tensors are the reference kernels' integers but for a step now and then: it sums in floats, and kernels round an
average pool's halves differently. It leaves out the rounding of biases (32 bits) and of a final softmax, and what lies
inside of layers that are not a convolution, dense or normalization, such as LRN: of these the output alone is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emb.quantize._known import KnownRange, moments
from emb.quantize._ranges import Activations, Range, calibrate
from emb.quantize.remedies.placement import Site, calls_of, has_kernel, kind, sites_of

if TYPE_CHECKING:
    import keras

# By the name of a group of sites, or of a BatchNormalization's product.
Ranges = Mapping[str, Range]
# Images at once, fewer where their activations are more numbers than these.
_BATCH, _NUMBERS = 32, 1 << 27
_WIDEST = Range(lowest=0.0, highest=1.0)


def product_of(name: str) -> str:
    """The name of what a BatchNormalization multiplies, before it adds."""
    return f"{name}/product"


def ranges_of(model: keras.Model, images: NDArray[np.float32], *, method: str) -> dict[str, Range]:
    """The range of every group of sites and of every product.

    images: (n, height, width, channels) as the model takes them.  method: "minmax", "percentile" or "mse".
    Raises ModelError for activations that are not finite.
    """
    sites = sites_of(model)
    single = calibrate(lambda: activations(model, images, sites), method=method, levels=256)
    groups = {site.name: site.group for site in sites} | {name: name for name in single if name.endswith("/product")}
    # In integers it gives its input's, or the limit, for which nothing has to widen.
    limited = {call.name for call in calls_of(model) if kind(call.layer) == "ChannelReLU"}
    merged: dict[str, Range] = {}
    for name, one in single.items():
        if name in limited:
            continue
        other = merged.get(groups[name], one)
        lowest, highest = min(one.lowest, other.lowest), max(one.highest, other.highest)
        merged[groups[name]] = Range(lowest=lowest, highest=highest)
    for site in sites:
        if site.fixed:
            merged[site.group] = Range(lowest=site.fixed[0], highest=site.fixed[1])
    return merged


def known_ranges(model: keras.Model, images: NDArray[np.float32], ranges: Ranges) -> list[KnownRange]:
    """`ranges` for a converter: every site by what it takes on the images."""
    sites = sites_of(model)
    seen = moments(activations(model, images, sites))
    groups = {site.name: site.group for site in sites}
    return [KnownRange(moments=one, range=ranges[groups.get(name, name)]) for name, one in seen.items()]


def activations(model: keras.Model, images: NDArray[np.float32], sites: list[Site]) -> Iterator[Activations]:
    """{site's name: values} for one batch of images after the other; products of BatchNormalization as well."""
    import keras

    norms = {call.name: call for call in calls_of(model) if kind(call.layer) == "BatchNormalization"}
    outputs = {site.name: site.output for site in sites}
    outputs |= {product_of(name): call.output for name, call in norms.items()}
    inner = keras.Model(model.inputs[0], outputs)
    offsets = {product_of(name): _offset(call.layer) for name, call in norms.items()}
    numbers = sum(int(np.prod(output.shape[1:])) for output in outputs.values())
    batch = max(1, min(_BATCH, _NUMBERS // max(1, numbers)))
    for start in range(0, len(images), batch):
        values = inner.predict_on_batch(images[start : start + batch])
        yield {
            name: np.asarray(value) - offsets[name] if name in offsets else np.asarray(value)
            for name, value in values.items()
        }


def _offset(norm: Any) -> NDArray[np.float32]:
    import keras

    numbers = keras.ops.convert_to_numpy
    scale = (numbers(norm.gamma) if norm.scale else 1.0) / np.sqrt(numbers(norm.moving_variance) + norm.epsilon)
    offset: NDArray[np.float32] = (numbers(norm.beta) if norm.center else 0.0) - numbers(norm.moving_mean) * scale
    return offset


def simulated(model: keras.Model, ranges: Ranges, *, bits: int = 8) -> keras.Model:
    """The model as its integer graph computes it, with weights of its own, which begin with the model's.

    ranges: as `ranges_of` gives them.  bits: of the kernels' integers.
    Layers have the names of the model's; `give_back` carries trained weights back.
    """
    import keras

    sites = {id(site.output): site for site in sites_of(model)}
    # Keras runs through the graph in this order.
    order = iter([id(call.output) for call in calls_of(model)])
    copies: dict[int, Any] = {}

    def copied(layer: Any) -> Any:
        if id(layer) not in copies:
            copies[id(layer)] = _simulating(layer, bits=bits)
        return copies[id(layer)]

    def called(layer: Any, *inputs: Any, **arguments: Any) -> Any:
        x = layer(*inputs, **arguments)
        site = sites.get(next(order))
        is_score = site is not None and site.output is model.outputs[0] and site.fixed
        if site is None or not site.is_rounded or is_score:
            return x
        from emb.layers import FakeQuantization

        chosen = ranges.get(site.group, _WIDEST)
        return FakeQuantization(chosen.lowest, chosen.highest, name=f"{site.name}_range")(x)

    clone = keras.models.clone_model(model, clone_function=copied, call_function=called, recursive=False)
    for layer in model.layers:
        if id(layer) in copies and layer.weights:
            _carry(layer, copies[id(layer)])
    twin = keras.Model(clone.inputs[0], clone.outputs[0], name=model.name)
    set_ranges(twin, model, ranges)
    return twin


def rounding_layers(twin: keras.Model, model: keras.Model) -> dict[str, list[Any]]:
    """The layers of the simulation `twin` of `model` that round to each range."""
    layers = {layer.name: layer for layer in twin.layers}
    found: dict[str, list[Any]] = {}
    for site in sites_of(model):
        if f"{site.name}_range" in layers:
            found.setdefault(site.group, []).append(layers[f"{site.name}_range"])
    groups = {site.name: site.group for site in sites_of(model)}
    for call in calls_of(model):
        if kind(call.layer) == "BatchNormalization":
            found[product_of(call.name)] = [layers[call.layer.name]]
        elif kind(call.layer) == "ChannelReLU" and call.name in groups:
            found.setdefault(groups[call.name], []).append(layers[call.layer.name])
    return found


def set_ranges(twin: keras.Model, model: keras.Model, ranges: Ranges) -> None:
    """Give the simulation `twin` of `model` other ranges; what is not named keeps its own."""
    for name, layers in rounding_layers(twin, model).items():
        for layer in layers:
            if name in ranges:
                layer.lowest.assign(ranges[name].lowest)
                layer.highest.assign(ranges[name].highest)


def give_back(twin: keras.Model, model: keras.Model) -> None:
    """Put the weights of the simulation `twin` into `model`."""
    layers = {layer.name: layer for layer in twin.layers}
    for layer in model.layers:
        if layer.weights and layer.name in layers:
            _carry(layers[layer.name], layer)


def _carry(source: Any, target: Any) -> None:
    for variable in target.variables:
        value = next((other for other in source.variables if other.name == variable.name), None)
        if value is not None:
            variable.assign(value)


def _simulating(layer: Any, *, bits: int) -> Any:
    """The layer's twin in the integer graph; a copy where nothing but its output is rounded."""
    from emb import layers as own

    twins: dict[str, Any] = {
        "Conv2D": own.QuantizedConv2D,
        "GroupedConv2D": own.QuantizedConv2D,
        "DepthwiseConv2D": own.QuantizedDepthwiseConv2D,
        "Dense": own.QuantizedDense,
        "BatchNormalization": own.QuantizedBatchNormalization,
        "ChannelReLU": own.QuantizedChannelReLU,
    }
    config = layer.get_config()
    if has_kernel(layer):
        # Of fewer bits there is no depthwise kernel.
        least = 8 if kind(layer) == "DepthwiseConv2D" else bits
        return twins[kind(layer)].from_config(config | {"bits": max(bits, least)})
    return twins.get(kind(layer), type(layer)).from_config(config)
