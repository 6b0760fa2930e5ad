"""Which images belong to which split, decided from labels, names and seeds alone. Sees no pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def stratified(labels: NDArray[np.int64], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """A random share of every class, as a mask over `labels`.

    labels: (n,) int64.  fraction: in (0, 1), of all images; each class gives its part of it, rounded up or down.
    A class of two or more images gives at least one and keeps at least one; a single image stays. The same
    labels, fraction and seed give the same mask.
    """
    taken = np.zeros(len(labels), dtype=np.bool_)
    if not len(labels):
        return taken
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    for label, share in zip(classes, _shares(counts, fraction), strict=True):
        taken[rng.permutation(np.flatnonzero(labels == label))[:share]] = True
    return taken


def hashed(names: Iterable[str], *, fraction: float, salt: str) -> NDArray[np.bool_]:
    """A share of the names of one class, decided for each name by its own hash, as a mask over `names`.

    A name keeps its side when others come or go. Only where that would leave a side empty, in very small classes,
    the name with the lowest hash is taken or the one with the highest is kept.
    """
    hashes = bytearray()
    for name in names:
        hashes += hashlib.sha256(f"{salt}\0{name}".encode(errors="surrogateescape")).digest()[:8]
    values = np.frombuffer(hashes, dtype=">u8").astype(np.uint64)
    taken = values < np.uint64(int(fraction * 2**64))
    if len(values) > 1 and not taken.any():
        taken[np.argmin(values)] = True
    elif len(values) > 1 and taken.all():
        taken[np.argmax(values)] = False
    elif len(values) == 1:
        taken[0] = False
    return taken


def balanced(labels: NDArray[np.int64], *, count: int, seed: int) -> NDArray[np.int64]:
    """`count` different indices into `labels`, in random order, equally many of each class where possible.

    count: in [1, n]. What a small class cannot give is shared among the others, so two classes that are not used
    up differ by at most one.
    """
    rng = np.random.default_rng(seed)
    queues = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    chosen: list[int] = []
    turn = 0
    while len(chosen) < count:
        # One image of each class a turn; who comes last in an incomplete turn is random.
        giving = [int(queue[turn]) for queue in queues if turn < len(queue)]
        chosen += rng.permutation(giving)[: count - len(chosen)].tolist()
        turn += 1
    return rng.permutation(np.array(chosen, dtype=np.int64))


def _shares(counts: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Whole numbers nearest to counts * fraction whose sum is the rounded share of all (largest remainders)."""
    exact = counts * fraction
    shares = np.floor(exact).astype(np.int64)
    left = round(float(exact.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:left]] += 1
    return np.minimum(np.maximum(shares, 1), counts - 1)
