"""Estimates a latency from published ones of other networks. Measures nothing, and says so."""

from __future__ import annotations

from collections.abc import Sequence

from emb.spec.fit import Estimate
from emb.spec.target import Prior

FARTHEST = 4.0
"""How many times smaller or larger a network may be than the one its latency is taken from."""

LITTLE_STREAMED_BYTES = 2 * 2**20
"""What takes little of the time. On the Dev Board, the published networks that stream 19 MB or more take 2.6 to 2.9 ms
for each of them; DenseNet-121, with 1.6 MB, takes its 25 ms for other reasons, and in between there is none."""


def estimate(macs: int, priors: Sequence[Prior], *, streamed_bytes: int = 0) -> Estimate | None:
    """The time of one image at the rates of the two networks of the most similar size.

    macs: of one inference. A network between a quarter and four times as large counts: small networks are bound by what
    every inference costs, large ones by memory, and neither grows with the MACs.
    streamed_bytes: parameters sent to the accelerator for every image. Where these are many, sending them takes most
    of the time, and only such networks are compared, by what they send: AlexNet, with a fifteenth of ResNet-152's MACs,
    sends as much.
    None if no network is similar.
    """
    sending = [prior for prior in priors if prior.streamed_bytes > LITTLE_STREAMED_BYTES]
    if streamed_bytes > LITTLE_STREAMED_BYTES:
        return _at_rates([(prior, prior.streamed_bytes) for prior in sending], streamed_bytes, "streamed bytes")
    return _at_rates([(prior, prior.macs) for prior in priors if prior not in sending], macs, "MACs")


def _at_rates(priors: Sequence[tuple[Prior, int]], size: int, of: str) -> Estimate | None:
    """priors: each with its own size."""
    similar = [(prior, own) for prior, own in priors if own <= FARTHEST * size and size <= FARTHEST * own]
    if not similar:
        return None
    nearest = sorted(similar, key=lambda pair: max(pair[1] / size, size / pair[1]))[:2]
    times_us = [size * prior.latency_us / own for prior, own in nearest]
    names = " and ".join(prior.network for prior, _ in nearest)
    sources = "; ".join(dict.fromkeys(prior.source for prior, _ in nearest))
    return Estimate(
        lowest_us=min(times_us), highest_us=max(times_us), source=f"{of} at the rates of {names} ({sources})"
    )
