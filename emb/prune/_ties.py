"""Channels as numbers, and which of them can only go together. Knows no layer.

An array of such numbers, one for each position of a tensor's last axis, says which channel stands where. Tying two
arrays makes one decision of the two channels at each position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Channels = NDArray[np.int64]
"""The channels along one axis, by number."""


class Ties:
    """All channels of one model while it is walked through."""

    def __init__(self) -> None:
        self._above: list[int] = []  # a forest; a channel that is its own is a root, and stands for its tree
        self._whole: dict[int, str] = {}  # root -> why it stays

    def new(self, count: int) -> Channels:
        """`count` channels that are tied to none."""
        first = len(self._above)
        self._above.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    @property
    def count(self) -> int:
        """How many channels there are."""
        return len(self._above)

    def tie(self, first: Channels, *others: Channels) -> None:
        """The channels at each position, one of every array, go or stay together. All arrays have one length."""
        for other in others:
            for one, two in zip(first.tolist(), other.tolist(), strict=True):
                self._join(one, two)

    def leave_whole(self, channels: Channels, reason: str) -> None:
        """None of these, and nothing that is or will be tied to them, goes. The first reason is the one that counts."""
        for channel in channels.tolist():
            self._whole.setdefault(self._root(channel), reason)

    def roots(self, channels: Channels) -> Channels:
        """The same array, every channel by the number that stands for all that are tied to it."""
        return np.array([self._root(channel) for channel in channels.tolist()], dtype=np.int64)

    def reason(self, channel: int) -> str:
        """Why the channel stays; empty if it may go."""
        return self._whole.get(self._root(channel), "")

    def _root(self, channel: int) -> int:
        while self._above[channel] != channel:
            self._above[channel] = self._above[self._above[channel]]
            channel = self._above[channel]
        return channel

    def _join(self, one: int, two: int) -> None:
        above, below = sorted((self._root(one), self._root(two)))
        if above == below:
            return
        self._above[below] = above
        reasons = [self._whole.pop(root) for root in (above, below) if root in self._whole]
        if reasons:
            self._whole[above] = reasons[0]
