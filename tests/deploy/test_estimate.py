"""Latencies estimated from published ones: between the neighbours' rates, and only where there are neighbours."""

from __future__ import annotations

import pytest

from emb.deploy.estimate import LITTLE_STREAMED_BYTES, estimate
from emb.pipeline.recipes import load_target
from emb.spec.target import Prior


def prior(network: str, macs: int, latency_us: float, source: str = "a table", *, streamed_bytes: int = 0) -> Prior:
    return Prior(network=network, macs=macs, latency_us=latency_us, source=source, streamed_bytes=streamed_bytes)


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


MB = 1_000_000
STREAMING = (
    *TABLE,
    prior("wide", 150, 3_000.0, streamed_bytes=10 * MB),
    prior("wider", 90, 8_000.0, streamed_bytes=40 * MB),
)


def test_what_streams_its_parameters_is_compared_by_what_it_sends() -> None:
    found = estimate(150, STREAMING, streamed_bytes=20 * MB)
    assert found is not None
    assert (found.lowest_us, found.highest_us) == (4_000.0, 6_000.0)
    assert found.source == "streamed bytes at the rates of wide and wider (a table)"


def test_what_streams_nothing_is_not_compared_with_what_does() -> None:
    assert estimate(150, STREAMING) == estimate(150, TABLE)
    assert estimate(150, STREAMING, streamed_bytes=2 * 2**20) == estimate(150, TABLE)


@pytest.mark.parametrize("streamed_bytes", [2_400_000, 200 * MB])
def test_none_far_from_all_that_stream(streamed_bytes: int) -> None:
    assert estimate(150, STREAMING, streamed_bytes=streamed_bytes) is None


def test_none_where_nothing_is_known_to_stream() -> None:
    assert estimate(150, TABLE, streamed_bytes=20 * MB) is None


@pytest.mark.parametrize("name", ["coral-dev-board", "coral-usb-pc"])
def test_published_latencies_of_what_streams_follow_from_each_other(name: str) -> None:
    """Each from the others, within a tenth."""
    priors = load_target(name).priors
    sending = [one for one in priors if one.streamed_bytes > LITTLE_STREAMED_BYTES]
    assert len(sending) == 5
    for one in sending:
        others = [other for other in priors if other != one]
        found = estimate(one.macs, others, streamed_bytes=one.streamed_bytes)
        assert found is not None
        assert found.lowest_us == pytest.approx(one.latency_us, rel=0.1)
        assert found.highest_us == pytest.approx(one.latency_us, rel=0.1)
