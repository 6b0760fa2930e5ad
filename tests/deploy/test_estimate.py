"""Latencies estimated from published ones: between the neighbours' rates, and only where there are neighbours."""

from __future__ import annotations

import pytest

from emb.deploy.estimate import estimate
from emb.spec.target import Prior


def prior(network: str, macs: int, latency_us: float, source: str = "a table") -> Prior:
    return Prior(network=network, macs=macs, latency_us=latency_us, source=source)


TABLE = (prior("slow", 100, 50.0), prior("fast", 200, 40.0), prior("huge", 10_000, 1.0))


def test_between_the_rates_of_the_two_most_similar() -> None:
    found = estimate(150, TABLE)
    assert found is not None
    assert (found.lowest_us, found.highest_us) == (30.0, 75.0)
    assert found.source == "MACs at the rates of fast and slow (a table)"


def test_of_one_alone() -> None:
    found = estimate(700, TABLE)
    assert found is not None
    assert (found.lowest_us, found.highest_us) == (140.0, 140.0)
    assert found.source == "MACs at the rates of fast (a table)"


@pytest.mark.parametrize("macs", [0, 24, 1_000, 2_400, 40_001])
def test_none_far_from_all(macs: int) -> None:
    assert estimate(macs, TABLE) is None


def test_none_without_a_table() -> None:
    assert estimate(150, ()) is None
