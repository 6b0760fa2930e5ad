"""Keras builders of classic CNNs, one public file per family. Knows neither data nor training, and holds no weights.

Each public file has one function

    build(*, input_shape: tuple[int, int, int], classes: int, **arguments) -> keras.Model

whose further keyword arguments are the builder's own, all with defaults. The model takes raw pixels,
(batch, height, width, channels) in 0..255, and returns (batch, classes) probabilities. Importing a file does not
import keras. A file whose network begins differently for small images has a second function

    stem(input_shape: tuple[int, int, int], **arguments) -> str

the sentence in which `emb inspect` says which beginning that is, and why.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from emb.errors import SpecError
from emb.registry import Registry, nearest

if TYPE_CHECKING:
    import keras

__all__ = ["ZOO", "carry_over", "check_arguments"]

ZOO = Registry("emb.zoo", kind="model")

# What every builder gets from the data, so that no recipe may set it.
_FROM_DATA = ("input_shape", "classes")


def check_arguments(builder_name: str, arguments: Mapping[str, Any]) -> None:
    """Check a recipe's [model.arguments] against the signature of the builder's `build`, without importing keras.

    Raises SpecError for an unknown builder, and one SpecError that names every argument that is unknown (with the
    nearest known name), is decided by the data, or has a value of the wrong kind.
    """
    build = ZOO.get(builder_name).build
    parameters = _own_parameters(build)
    faults = [f"{name} {fault}" for name, value in arguments.items() if (fault := _fault(name, value, parameters))]
    if faults:
        takes = ", ".join(f"{name} ({_kind(parameter)})" for name, parameter in parameters.items())
        raise SpecError(
            f"the model {builder_name!r} cannot be built with these arguments",
            why="\n       ".join(faults),
            fix=f"correct [model.arguments]; {builder_name} takes {takes or 'none'}",
        )


def carry_over(
    source: keras.Model, target: keras.Model, *, skip_head: bool = False, reverse_channels: bool = False
) -> None:
    """Give `target` the weights of `source`, see emb.zoo._applications."""
    from emb.zoo._applications import carry_over as carry

    carry(source, target, skip_head=skip_head, reverse_channels=reverse_channels)


def _own_parameters(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(build).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in _FROM_DATA}


def _fault(name: str, value: Any, parameters: Mapping[str, inspect.Parameter]) -> str:
    if name in _FROM_DATA:
        return "follows from the data and the recipe's [input]"
    if name not in parameters:
        return f"is unknown; {nearest(name, parameters)}"
    wanted = parameters[name].annotation
    if get_origin(wanted) is Literal:
        choices = get_args(wanted)
        # Not `in`: 1 == True == 1.0.
        is_choice = any(value == choice and type(value) is type(choice) for choice in choices)
        return "" if is_choice else f"cannot be {value!r}; {_offer(value, choices)}"
    if wanted is float and type(value) is int:
        return ""
    if wanted in (bool, int, float, str) and type(value) is not wanted:
        return f"must be of type {wanted.__name__}, not {value!r}"
    return ""


def _offer(value: Any, choices: tuple[Any, ...]) -> str:
    """The nearest of words; all of numbers, in the signature's order."""
    if all(isinstance(choice, str) for choice in choices):
        return nearest(str(value), choices)
    return f"known: {', '.join(map(str, choices))}"


def _kind(parameter: inspect.Parameter) -> str:
    wanted = parameter.annotation
    if get_origin(wanted) is Literal:
        return ", ".join(repr(choice) for choice in get_args(wanted))
    return wanted.__name__ if isinstance(wanted, type) else str(wanted)
