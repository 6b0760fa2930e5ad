"""A copy of a model that computes in half precision, with float32 weights. Knows no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emb.errors import ModelError

if TYPE_CHECKING:
    import keras


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """`model` itself for "float32"; else a copy with the same weights whose layers have the dtype policy `precision`.

    The variables of the copy are float32 and in the order of the model's, so that they can be carried back.
    The outputs and what scales the pixels stay float32: a softmax in half precision has steps of 1 %, and so have
    pixels times 1/255. Source: Micikevicius et al. 2018, section 3.
    Raises ModelError for a model or layer that cannot be copied from its configuration.
    """
    if precision == "float32":
        return model
    import keras

    functional = keras.Model(model.inputs[0], model.outputs)
    exact = set(functional.output_names)

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        scales = isinstance(layer, keras.layers.InputLayer | keras.layers.Rescaling | keras.layers.Normalization)
        if not scales and layer.name not in exact and layer.dtype_policy.name == "float32":
            config["dtype"] = precision
        return type(layer).from_config(config)

    try:
        twin = keras.models.clone_model(functional, clone_function=copy, recursive=True)
        for variable, value in zip(twin.variables, model.variables, strict=True):
            variable.assign(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"the model cannot be trained in {precision}",
            why=f"it cannot be copied from its configuration: {str(error).splitlines()[0]}",
            fix='set train.precision to "float32"',
        ) from error
    return twin


def assign(variables: list[Any], values: tuple[Any, ...]) -> None:
    """Give each variable its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
