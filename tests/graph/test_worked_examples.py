"""What the lecture works out by hand, worked out from graphs: the same numbers, by the graph functions alone."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from emb.graph import keras as keras_graph
from emb.graph.cost import macs, operation_macs, operation_parameters, parameters
from emb.graph.model import Graph
from emb.graph.receptive import receptive_fields
from emb.graph.summary import summarise
from emb.pipeline.zoo_graph import graph_of


def stack(shape: tuple[int, int, int], *layers: Any) -> Graph:
    """The graph of layers one behind the other on (height, width, channels)."""
    import keras

    return keras_graph.read(keras.Sequential([keras.Input(shape), *layers]))


def conv(filters: int, kernel: int, *, padding: str = "same", name: str | None = None) -> Any:
    from keras import layers

    return layers.Conv2D(filters, kernel, padding=padding, name=name)


def test_the_first_convolution_of_alexnet() -> None:
    graph = graph_of("alexnet", input_shape=(227, 227, 3), classes=1000, arguments={})
    first = next(operation for operation in graph.operations if operation.kind == "CONV_2D")
    assert graph.tensors[first.outputs[0]].shape == (1, 55, 55, 96)
    assert operation_macs(graph, first) == 11 * 11 * 3 * 55 * 55 * 96 == 105_415_200  # 105.4M
    assert operation_parameters(graph)[graph.operations.index(first)] == 11 * 11 * 3 * 96 + 96


@pytest.mark.parametrize("side", [1, 7, 14, 28])
def test_the_bottleneck(side: int) -> None:
    """(a) 5x5 on 64 maps; (b) 1x1 to 32 maps before it. "same" padding keeps the map at i x i."""
    direct = stack((side, side, 64), conv(64, 5))
    assert parameters(direct) == 5 * 5 * 64 * 64 + 64 == 102_464
    assert macs(direct) == 102_400 * side**2
    bottleneck = stack((side, side, 64), conv(32, 1), conv(64, 5))
    assert parameters(bottleneck) == 1 * 1 * 64 * 32 + 32 + 5 * 5 * 32 * 64 + 64 == 53_344
    assert macs(bottleneck) == 53_248 * side**2


@pytest.mark.parametrize(("count", "kernel"), [(2, 5), (3, 7)])
@pytest.mark.parametrize("channels", [3, 64])
def test_small_kernels_see_as_far_and_cost_less(count: int, kernel: int, channels: int) -> None:
    """Two 3x3 convolutions see what one 5x5 sees, three what one 7x7 sees, with fewer parameters and MACs."""
    small = stack((32, 32, channels), *(conv(channels, 3) for _ in range(count)))
    large = stack((32, 32, channels), conv(channels, kernel))
    fields = [receptive_fields(graph)[-1] for graph in (small, large)]
    assert [field.pixels for field in fields if field] == [(Fraction(kernel), Fraction(kernel))] * 2
    assert parameters(small) == count * (9 * channels**2 + channels) < parameters(large)
    assert parameters(large) == kernel**2 * channels**2 + channels
    assert macs(small) == count * 9 * channels**2 * 32**2 < macs(large)


def test_what_the_two_normalizations_learn() -> None:
    """The lecture's comparison: LRN has nothing to train, BN a scale and a shift for each channel."""
    from keras import layers

    from emb.layers import LocalResponseNormalization

    normalized = [stack((8, 8, 12), layer) for layer in (LocalResponseNormalization(), layers.BatchNormalization())]
    assert [summarise(graph).trainable for graph in normalized] == [0, 2 * 12]


def test_the_practical_cnn() -> None:
    """28x28 pixels with 5x5 kernels: 24x24 maps, 26 parameters each; 2x2 pooling: 12x12."""
    from keras import layers

    graph = stack((28, 28, 1), conv(20, 5, padding="valid"), layers.MaxPooling2D(2))
    assert [graph.tensors[operation.outputs[0]].shape for operation in graph.operations] == [
        (1, 24, 24, 20),
        (1, 12, 12, 20),
    ]
    assert parameters(graph) == 20 * 26 == 520
    assert macs(graph) == 25 * 20 * 24 * 24


def test_pooling_condenses_and_costs_no_parameters() -> None:
    """Overlapping 3x3/2 pooling of AlexNet against 2x2/2: the field and jump behind a 5x5 convolution."""
    from keras import layers

    for pool, pixels, side in ((layers.MaxPooling2D(3, 2), 7, 11), (layers.MaxPooling2D(2), 6, 12)):
        graph = stack((28, 28, 1), conv(4, 5, padding="valid"), pool)
        field = receptive_fields(graph)[-1]
        assert field is not None
        assert (field.pixels[0], field.jump[0]) == (pixels, 2)
        assert graph.tensors[graph.outputs[0]].shape == (1, side, side, 4)
        assert operation_parameters(graph)[-1] == macs(graph) - 25 * 4 * 24 * 24 == 0
