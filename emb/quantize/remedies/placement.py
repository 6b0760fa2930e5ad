"""Where an integer graph rounds: which tensors of a plain Keras model have a range, and which share one.

As the TFLite converter places it: behind an activation that is fused, not before it; pooling, padding and reshaping
hand their input's integers on; a concatenation and what it alone reads are one range; tanh, sigmoid and softmax have
fixed ones.
Chooses no range. A plain model is what emb.export.plain makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Keras's names of functions; the kernels' output scales are fixed by TFLite's specification of int8 operations.
FIXED = {"tanh": (-1.0, 127 / 128), "sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256)}
_SUMS = ("Add", "Subtract", "Multiply")
_SELECTING = ("MaxPooling2D", "GlobalMaxPooling2D", "Flatten", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D")
_OWN_SELECTING = ("ChannelPadding", "ChannelReLU", "ChannelSplit")
_KERNELS = ("Conv2D", "GroupedConv2D", "DepthwiseConv2D", "Dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a layer. name: the layer's, with a number from its second call on.

    inputs, outputs: Keras's symbolic tensors; a layer's own `input` is its first call's, perhaps in another model.
    """

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def output(self) -> Any:
        return self.outputs[0]

    @property
    def sources(self) -> tuple[int, ...]:
        """Identities of the inputs."""
        return tuple(id(tensor) for tensor in self.inputs)

    @property
    def results(self) -> tuple[int, ...]:
        """Identities of the outputs."""
        return tuple(id(tensor) for tensor in self.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A tensor that an integer graph stores. name: of the call that gives it.  output: Keras's symbolic tensor.

    group: sites of one group share a range; the name of the first of them.
    fixed: the range that the operation prescribes, None if it follows from values.
    is_rounded: whether the call computes new numbers; if not, its input's integers are handed on.
    """

    name: str
    output: Any
    group: str
    is_rounded: bool
    fixed: tuple[float, float] | None = None


def calls_of(model: keras.Model) -> list[Call]:
    """Every call in an order in which they can run, from Keras's own record of its graph."""
    counts: dict[str, int] = {}
    calls = []
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            layer = node.operation
            counts[layer.name] = counts.get(layer.name, 0) + 1
            suffix = f"_{counts[layer.name]}" if counts[layer.name] > 1 else ""
            calls.append(
                Call(
                    name=layer.name + suffix,
                    layer=layer,
                    inputs=tuple(node.input_tensors),
                    outputs=tuple(node.output_tensors),
                )
            )
    return calls


def kind(layer: Any) -> str:
    """The class's name, for layers that are exactly Keras's or emb's own; "" for anything that was derived."""
    own = type(layer).__module__.startswith(("keras.", "emb.layers"))
    return type(layer).__name__ if own else ""


def function_of(layer: Any) -> str:
    """ "relu", "tanh" … of a layer that is an activation and nothing else; "" for others and for changed ReLUs."""
    name = kind(layer)
    if name == "Activation":
        return str(getattr(layer.activation, "__name__", ""))
    if name == "ReLU" and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value, "")
    return {"Softmax": "softmax"}.get(name, "")


def has_kernel(layer: Any) -> bool:
    """Whether its weights are a kernel, integers per output channel, and a bias."""
    return kind(layer) in _KERNELS


def readers_of(calls: list[Call]) -> dict[int, list[Call]]:
    """Tensor's id -> the calls that read it."""
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for tensor in call.sources:
            readers.setdefault(tensor, []).append(call)
    return readers


def sites_of(model: keras.Model) -> list[Site]:
    """The tensors of a plain model that have a range, in the order of the calls. The image itself is integers."""
    calls = calls_of(model)
    readers = readers_of(calls)
    outer = {id(tensor) for tensor in model.outputs}
    ties = _Ties()
    fixed: dict[int, tuple[float, float]] = {}
    # Ranges that nothing widens: the image's, which is its pixels', and those that an operation prescribes.
    closed = {id(tensor) for tensor in model.inputs}
    passed: set[int] = set()
    stored: list[tuple[Call, bool]] = []
    for call in calls:
        result = call.results[0]
        computes = not _hands_on(call) or kind(call.layer) == "AveragePooling2D"
        if function_of(call.layer) in FIXED:
            fixed[result] = FIXED[function_of(call.layer)]
            closed.add(result)
        elif _hands_on(call) and call.sources[0] in closed:
            closed.update(call.results)
            if call.sources[0] not in fixed:
                continue
            fixed[result] = fixed[call.sources[0]]
        else:
            tied = _tied(call, closed=closed | passed | outer, readers=readers)
            for tensor in tied:
                ties.join(tensor, result)
            computes = computes and not (kind(call.layer) == "Concatenate" and len(tied) == len(call.sources))
        if _hands_on(call):
            passed.update(call.results)
        if not _is_fused(call, readers, outer):
            stored.append((call, computes))
    first: dict[int, str] = {}
    return [
        Site(
            name=call.name,
            output=call.output,
            group=first.setdefault(ties.of(call.results[0]), call.name),
            is_rounded=computes,
            fixed=fixed.get(call.results[0]),
        )
        for call, computes in stored
    ]


def _hands_on(call: Call) -> bool:
    name = kind(call.layer)
    return name in _SELECTING or name in _OWN_SELECTING or name == "AveragePooling2D"


def _tied(call: Call, *, closed: set[int], readers: dict[int, list[Call]]) -> list[int]:
    """The tensors, inputs and further results, whose range is the first result's.

    A concatenation joins the ranges of what it alone reads; the converter rescales the rest, and what is in `closed`.
    """
    if _hands_on(call):
        return [*call.sources, *call.results[1:]]
    if kind(call.layer) == "Concatenate":
        return [tensor for tensor in call.sources if len(readers[tensor]) == 1 and tensor not in closed]
    return []


def _is_fused(call: Call, readers: dict[int, list[Call]], outer: set[int]) -> bool:
    """Whether what the call gives is never stored: ReLU behind it is part of the same operation."""
    following = readers.get(call.results[0], [])
    name = kind(call.layer)
    can_fuse = name in (*_KERNELS, *_SUMS, "BatchNormalization", "Rescaling")
    alone = len(following) == 1 and call.results[0] not in outer
    return can_fuse and alone and function_of(following[0].layer) in ("relu", "relu6")


class _Ties:
    """Sets of tensors that grow together."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def of(self, tensor: int) -> int:
        while (parent := self._parent.get(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def join(self, one: int, other: int) -> None:
        self._parent[self.of(one)] = self.of(other)
