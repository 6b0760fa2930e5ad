"""A graph as text, one line an operation: for people, and for golden files. Computes nothing."""

from __future__ import annotations

from emb.graph.model import ABSENT, Graph, Option, Quantization, Tensor


def dump(graph: Graph) -> str:
    """Tensors by their numbers, then the operations in order of execution. Ends in a newline."""
    lines = [
        f"{graph.name}: {graph.format}, {graph.layout}",
        f"inputs {_numbers(graph.inputs)}  outputs {_numbers(graph.outputs)}",
        "",
        *(f"%{index} {_tensor(tensor)}" for index, tensor in enumerate(graph.tensors)),
        "",
    ]
    for operation in graph.operations:
        options = ", ".join(f"{name}={_option(value)}" for name, value in sorted(operation.options.items()))
        native = "" if operation.native == operation.kind else f" ({operation.native})"
        lines.append(
            f"{_numbers(operation.outputs)} = {operation.kind}{native} {_numbers(operation.inputs)} {{{options}}}"
        )
    return "\n".join(lines) + "\n"


def _tensor(tensor: Tensor) -> str:
    shape = "?" if tensor.shape is None else "x".join("?" if e < 0 else str(e) for e in tensor.shape) or "scalar"
    parts = [f"{tensor.dtype}[{shape}]", "constant" if tensor.constant else "", _quantization(tensor.quantization)]
    return " ".join(part for part in (*parts, tensor.name) if part)


def _quantization(quantization: Quantization | None) -> str:
    """Scales to four digits: the rest belongs to the machine that calibrated."""
    if quantization is None:
        return ""
    if quantization.axis is not None:
        return f"scales={len(quantization.scales)} axis={quantization.axis}"
    return f"scale={quantization.scales[0]:.4g} zero={quantization.zero_points[0]}"


def _numbers(tensors: tuple[int, ...]) -> str:
    return ", ".join("-" if index == ABSENT else f"%{index}" for index in tensors)


def _option(value: Option) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_option(v) for v in value) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
