"""Neighbouring pixels of a row as channels, so that a convolution of few channels or few maps fills a kernel.

Memory stays as it is: an image of (height, width, channels) is one of (height, width / n, n * channels), and an output
of (height, width / m, m * maps) one of (height, width, maps). Between the two stands a convolution whose output
channels compute m neighbouring outputs, their kernels moved against each other and filled up with zeros. It gives the
same integers. For a stride of 2 this is the space-to-depth form of ResNet-50's first layer, in one dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beyond this many the zeros outweigh what the vectors gain.
_MOST_OUTPUTS = 8
# Below it nothing is rewritten, and two ways differ too little.
_LEAST_GAIN = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """One, along the width of an image. maps: channels of its output.  before, after: the pixels of zeros that stand
    left and right of the image.
    """

    width: int
    channels: int
    maps: int
    taps: int
    stride: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        return (self.before + self.width + self.after - self.taps) // self.stride + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """outputs: neighbours that become channels.  pixels: of the input that do.  taps: of the kernel, in packed pixels.

    before, after: packed pixels of zeros left and right of the image.  shift: pixels of zeros that the kernel
    begins with.
    """

    outputs: int
    pixels: int
    taps: int
    before: int
    after: int
    shift: int

    def kernel(self, weights: NDArray[Any], *, stride: int) -> NDArray[Any]:
        """(outputs * maps, height, taps, pixels * channels) of (maps, height, width, channels), same dtype."""
        maps, height, width, channels = weights.shape
        flat = weights.reshape(maps, height, width * channels)
        made = np.zeros((self.outputs, maps, height, self.taps * self.pixels * channels), weights.dtype)
        for place in range(self.outputs):
            first = (self.shift + place * stride) * channels
            made[place, :, :, first : first + width * channels] = flat
        return made.reshape(self.outputs * maps, height, self.taps, self.pixels * channels)

    def first_kernel(self, weights: NDArray[Any], *, taps: int, channels: int) -> NDArray[Any]:
        """The other way round: (maps, height, taps, channels) of what `kernel` has made."""
        maps, height = len(weights) // self.outputs, weights.shape[1]
        flat = weights[:maps].reshape(maps, height, self.taps * self.pixels, channels)
        return flat[:, :, self.shift : self.shift + taps]


def packing(one: Convolution, *, lanes: int, maps: int) -> Packing | None:
    """How to pack the convolution so that it takes least; None where that gains little or its sizes do not allow it.

    lanes, maps: channels that the kernel takes at once for every tap, and those of the output that it computes at
    once, so that fewer take as long; at least 1.
    """
    gains = {
        way: _gain(way, one, lanes=lanes, maps=maps)
        for outputs in range(1, _MOST_OUTPUTS + 1)
        if (way := packed(one, outputs)) is not None
    }
    best = max(gains.values(), default=0.0)
    if best < _LEAST_GAIN:
        return None
    # The first of those that differ too little computes the fewest zeros. MLAS, lib/convsym.cpp: for less than a whole
    # block of maps ONNX Runtime has no fast kernel on x86-64.
    near = [way for way, gain in gains.items() if gain >= _LEAST_GAIN and gain * _LEAST_GAIN > best]
    return next((way for way in near if way.outputs * one.maps >= maps), near[0])


def packed(one: Convolution, outputs: int) -> Packing | None:
    """How to pack so many outputs; None where the sizes do not allow it."""
    pixels = outputs * one.stride
    if pixels == 1 or one.width % pixels or one.outputs % outputs:
        return None
    before = -(-one.before // pixels)
    shift = before * pixels - one.before
    taps = -(-(shift + (outputs - 1) * one.stride + one.taps) // pixels)
    after = one.outputs // outputs + taps - 1 - before - one.width // pixels
    if after < 0:
        return None
    return Packing(outputs=outputs, pixels=pixels, taps=taps, before=before, after=after, shift=shift)


def _gain(way: Packing, one: Convolution, *, lanes: int, maps: int) -> float:
    """How many times less the packed convolution takes."""
    plain = one.taps * _filled(one.channels, lanes) * _filled(one.maps, maps)
    made = way.taps * _filled(way.pixels * one.channels, lanes) * _filled(way.outputs * one.maps, maps)
    # One division, so that equal gains are equal numbers.
    return plain * way.outputs / made


def _filled(channels: int, block: int) -> int:
    return -(-channels // block) * block
