"""The weights of a model that can be set to 0 or shared: its kernels. Knows no method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_NAMES = ("kernel", "pointwise_kernel", "depthwise_kernel")


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


def kernels(model: keras.Model) -> tuple[tuple[Kernel, ...], Mapping[str, str]]:
    """The kernels of convolutions and dense layers, and why other layers with matrices of weights are left whole."""
    found, whole = [], {}
    for place, variable in enumerate(model.variables):
        if len(variable.shape) < 2:
            continue
        path, _, name = variable.path.removeprefix(f"{model.name}/").rpartition("/")
        if name in _NAMES:
            depthwise = name == "depthwise_kernel"
            found.append(Kernel(place=place, layer=path, is_depthwise=depthwise, shape=tuple(variable.shape)))
        elif variable.trainable:
            whole[path] = f"its weights {name!r} are no kernel of a convolution or dense layer"
    return tuple(found), whole
