"""Short names for the tensors of a .tflite that was converted from Keras: of a small int8 file, names are a twentieth.

The converter calls what a fused operation writes after all that went into it,
`net_1/relu1_1/Relu;net_1/conv1_1/BiasAdd;net_1/conv1_1/convolution;net_1/conv1_1/Squeeze1`, and its bias almost so.
Which layers it computes is what readers look for in the name of what it writes (emb.graph.keras_names); this stays.
"""

from __future__ import annotations

from typing import Any

from emb.graph.flatbuffer import is_constant, tensor_name


def shorten_names(model: Any, *, scope: str) -> None:
    """Edit a schema ModelT in place: constants become c0, c1 and so on, other tensors name each of their layers once.

    scope: of the Keras model, which every layer's begins with. Inputs and outputs keep their names.
    """
    subgraph = model.subgraphs[0]
    border = {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
    constants, inner = [], []
    for index, tensor in enumerate(subgraph.tensors):
        if is_constant(model, tensor):
            constants.append(tensor)
        elif index not in border:
            inner.append(tensor)
    taken = {tensor_name(subgraph.tensors[index]) for index in border} | {tensor_name(tensor) for tensor in inner}
    for tensor in inner:
        short = _short(tensor_name(tensor), scope)
        if short not in taken:
            taken.add(short)
            tensor.name = short.encode()
    number = 0
    for tensor in constants:
        while f"c{number}" in taken:
            number += 1
        tensor.name = f"c{number}".encode()
        number += 1


def _short(name: str, scope: str) -> str:
    """Of several parts in one layer's scope the first, each without the model's scope."""
    parts: dict[tuple[str, ...], str] = {}
    for part in name.split(";"):
        *scopes, operation = part.split("/")
        # An operation of the model itself would look like one that is called after a layer.
        if scopes[:1] == [scope] and len(scopes) > 1:
            del scopes[0]
        parts.setdefault(tuple(scopes), "/".join((*scopes, operation)))
    return ";".join(parts.values())
