"""Reads a Keras 3 model, functional or Sequential, into a Graph. Loads no file and does not import Keras.

One operation stands for each call of a layer, weights are its constants, and the batch is one. A separable
convolution is two operations, as it is in every exported format. Models inside of the model are walked through.
Shapes stay Keras's own: activations in the layers' data format, weights HWIO (depthwise HWIM, transposed HWOI).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emb.errors import ModelError
from emb.graph.keras_kinds import kind_of, options_of
from emb.graph.model import ABSENT, UNKNOWN, Graph, Layout, Operation, Tensor
from emb.graph.vocabulary import TRANSPOSED_CONVOLUTIONS

_SEPARABLE = frozenset({"SeparableConv2D", "SeparableConv1D"})


def read(model: Any) -> Graph:
    """The graph of a keras.Model with layers that Keras knows the connections of, for a batch of one.

    Raises ModelError for a subclassed model, and for a Sequential one that does not know its input's shape yet.
    """
    function = _functional(model)
    reader = _Reader(_layout(model))
    inputs = tuple(reader.tensor(value, name=value.name) for value in function.inputs)
    reader.walk(function)
    return Graph(
        name=str(model.name),
        format="keras",
        layout=reader.layout,
        tensors=tuple(reader.tensors),
        operations=tuple(reader.operations),
        inputs=inputs,
        outputs=tuple(reader.index[id(value)] for value in function.outputs),
    )


def _functional(model: Any) -> Any:
    """The part of a model that holds its connections; a Sequential one keeps it inside."""
    function = getattr(model, "_functional", None) or model
    if not hasattr(function, "_nodes_by_depth"):
        raise ModelError(
            f"the Keras model {model.name!r} has no graph of layers",
            why="it is a subclassed model, or a Sequential one without an input shape",
            fix="build it from keras.Input with the functional API or keras.Sequential",
        )
    return function


def _layout(model: Any) -> Layout:
    formats = [getattr(layer, "data_format", None) for layer in _layers(model)]
    return "NCHW" if "channels_first" in formats else "NHWC"


def _layers(model: Any) -> Iterable[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


class _Reader:
    """A model while it is walked through. Keras's symbolic tensors are known by identity."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.index: dict[int, int] = {}
        self._kept_alive: list[Any] = []  # identities must not be used again while they are keys

    def tensor(self, value: Any, *, name: str) -> int:
        """The index of a symbolic tensor or of a variable, added when it is met for the first time."""
        if id(value) in self.index:
            return self.index[id(value)]
        variable = hasattr(value, "trainable")
        shape = tuple(UNKNOWN if extent is None else int(extent) for extent in value.shape)
        if not variable and shape[:1] == (UNKNOWN,):
            shape = (1, *shape[1:])
        self._kept_alive.append(value)
        self.index[id(value)] = self._add(Tensor(name=name, shape=shape, dtype=_dtype(value), constant=variable))
        return self.index[id(value)]

    def _add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def walk(self, function: Any) -> None:
        """Add the operations of a functional model, whose inputs are known already, in order of execution."""
        inputs = {id(value) for value in function.inputs}
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if not node.is_input and not all(id(value) in inputs for value in node.outputs):
                    self._call(node)

    def _call(self, node: Any) -> None:
        layer = node.operation
        sources = [self.index[id(value)] for value in node.arguments.keras_tensors]
        inner = getattr(layer, "_functional", None) or layer
        if hasattr(inner, "_nodes_by_depth"):
            self._call_model(inner, node, sources)
        elif type(layer).__name__ in _SEPARABLE:
            self._separable(layer, node, sources)
        else:
            self._layer(layer, node, sources)

    def _call_model(self, inner: Any, node: Any, sources: list[int]) -> None:
        """A shared inner model is walked through at every call, with its inputs and outputs bound to this one's."""
        for value, source in zip(inner.inputs, sources, strict=True):
            self.index[id(value)] = source
        for depth in inner._nodes_by_depth.values():
            for inner_node in depth:
                if not inner_node.is_input:
                    for value in inner_node.outputs:
                        self.index.pop(id(value), None)
        for value, source in zip(inner.inputs, sources, strict=True):
            self.index[id(value)] = source
        self.walk(inner)
        for value, result in zip(node.outputs, inner.outputs, strict=True):
            self.index[id(value)] = self.index[id(result)]
            self._kept_alive.append(value)

    def _layer(self, layer: Any, node: Any, sources: list[int]) -> None:
        kind = kind_of(layer)
        outputs = self._outputs(layer, node)
        weights = [self._weight(layer, variable) for variable in getattr(layer, "weights", ())]
        inputs = [*sources, *weights]
        if kind in TRANSPOSED_CONVOLUTIONS:
            inputs = [ABSENT, *weights[:1], *sources, *weights[1:]]
        self.operations.append(
            Operation(
                kind=kind,
                name=str(layer.name),
                native=type(layer).__name__,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                options=options_of(layer, kind, layout=self.layout),
                custom=not type(layer).__module__.startswith(("keras.", "emb.layers.")),
            )
        )

    def _outputs(self, layer: Any, node: Any) -> list[int]:
        names = [f"{layer.name}:{place}" if len(node.outputs) > 1 else layer.name for place in range(len(node.outputs))]
        return [self.tensor(value, name=name) for value, name in zip(node.outputs, names, strict=True)]

    def _weight(self, layer: Any, variable: Any) -> int:
        return self.tensor(variable, name=f"{layer.name}/{variable.name}")

    def _separable(self, layer: Any, node: Any, sources: list[int]) -> None:
        (output,) = self._outputs(layer, node)
        depthwise, pointwise, *bias = (self._weight(layer, variable) for variable in layer.weights)
        channels = self.tensors[pointwise].shape
        shape = list(self.tensors[output].shape or ())
        shape[-1 if self.layout == "NHWC" else 1] = (channels or (UNKNOWN, UNKNOWN))[-2]
        between = self._add(
            Tensor(name=f"{layer.name}/depthwise", shape=tuple(shape), dtype=self.tensors[output].dtype)
        )
        options = dict(options_of(layer, "DEPTHWISE_CONV_2D", layout=self.layout))
        activation = {"activation": options.pop("activation")} if "activation" in options else {}
        native = type(layer).__name__
        self.operations.append(
            Operation(
                kind="DEPTHWISE_CONV_2D",
                name=f"{layer.name}/depthwise",
                native=native,
                inputs=(*sources, depthwise),
                outputs=(between,),
                options=options,
            )
        )
        self.operations.append(
            Operation(
                kind="CONV_2D",
                name=f"{layer.name}/pointwise",
                native=native,
                inputs=(between, pointwise, *bias),
                outputs=(output,),
                options={
                    "kernel": (1, 1),
                    "stride": (1, 1),
                    "dilation": (1, 1),
                    "padding": "VALID",
                    **activation,
                },
            )
        )


def _dtype(value: Any) -> str:
    dtype = value.dtype
    return dtype if isinstance(dtype, str) else str(getattr(dtype, "name", dtype))
