"""Estimates a latency from published ones of other networks. Measures nothing, and says so."""

from __future__ import annotations

from collections.abc import Sequence

from emb.spec.fit import Estimate
from emb.spec.target import Prior

FARTHEST = 4.0
"""How many times smaller or larger a network may be than the one its latency is taken from."""


def estimate(macs: int, priors: Sequence[Prior]) -> Estimate | None:
    """The time that `macs` take at the rates of the two networks of the most similar size.

    macs: of one inference. None if no network has between a quarter and four times as many: small networks are
    bound by what every inference costs, large ones by memory, and neither grows with the MACs.
    """
    similar = [prior for prior in priors if prior.macs <= FARTHEST * macs and macs <= FARTHEST * prior.macs]
    if not similar:
        return None
    nearest = sorted(similar, key=lambda prior: max(prior.macs / macs, macs / prior.macs))[:2]
    times_us = [macs * prior.latency_us / prior.macs for prior in nearest]
    names = " and ".join(prior.network for prior in nearest)
    sources = "; ".join(dict.fromkeys(prior.source for prior in nearest))
    return Estimate(
        lowest_us=min(times_us), highest_us=max(times_us), source=f"MACs at the rates of {names} ({sources})"
    )
