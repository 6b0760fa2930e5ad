"""The weights of a model that can be set to 0 or shared: its kernels. Knows no method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One layer's weights. place: in model.variables.  shape: Keras's own: inputs of a neuron, then outputs."""

    place: int
    layer: str
    is_depthwise: bool
    shape: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """How many of the last axes count outputs; a depthwise kernel has them as channels times multiplier."""
        return 2 if self.is_depthwise else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OnKernels:
    """A constraint that emb.train keeps on some kernels of a model.

    layers: the kernels that it is on.  left_whole: layer -> why it has none.
    """

    layers: tuple[Kernel, ...]
    left_whole: Mapping[str, str]

    @property
    def decisions(self) -> str:
        """See emb.train.Constraint."""
        return repr(self)

    @property
    def places(self) -> tuple[int, ...]:
        """Where the kernels stand among the model's variables."""
        return tuple(kernel.place for kernel in self.layers)


def kernels(model: keras.Model) -> tuple[tuple[Kernel, ...], Mapping[str, str]]:
    """The kernels of convolutions and dense layers, and why other layers with matrices of weights are left whole."""
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    found: dict[int, Kernel] = {}
    whole = {}
    for layer in _layers(model):
        own = _kernels_of(layer)
        for variable, depthwise in own:
            place = places[id(variable)]
            found[place] = Kernel(
                place=place, layer=layer.name, is_depthwise=depthwise, shape=tuple(int(side) for side in variable.shape)
            )
        if not own and any(len(variable.shape) > 1 for variable in layer.trainable_variables):
            whole[layer.name] = f"{type(layer).__name__} is neither a plain convolution nor a dense layer"
    return tuple(found[place] for place in sorted(found)), whole


def _layers(model: Any) -> Iterator[Any]:
    """All layers, those of models inside of the model included."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _kernels_of(layer: Any) -> list[tuple[Any, bool]]:
    """(kernel, whether it is depthwise) of one layer; none of a transposed convolution, whose axes stand otherwise."""
    from keras import layers

    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        return [(layer.depthwise_kernel, True), (layer.pointwise_kernel, False)]
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        return [(layer.kernel, True)]
    if isinstance(layer, layers.Dense | layers.Conv1D | layers.Conv2D | layers.Conv3D):
        return [(layer.kernel, False)]
    return []
