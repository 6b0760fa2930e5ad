"""Properties of the splits: disjoint, proportional, stable."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emb.data._splits import balanced, hashed, stratified

labels_strategy = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(lambda x: np.array(x, dtype=np.int64))
fractions = st.floats(0.01, 0.99)


@given(labels=labels_strategy, fraction=fractions, seed=st.integers(0, 2**32 - 1))
def test_stratified_takes_the_share_of_every_class(labels: np.ndarray, fraction: float, seed: int) -> None:
    taken = stratified(labels, fraction=fraction, seed=seed)
    assert np.array_equal(taken, stratified(labels, fraction=fraction, seed=seed))
    for label in np.unique(labels):
        count = int(np.count_nonzero(labels == label))
        share = int(np.count_nonzero(taken[labels == label]))
        if count == 1:
            assert share == 0
        else:
            assert 1 <= share <= count - 1
            assert abs(share - count * fraction) < 1 or share in (1, count - 1)


@given(sizes=st.lists(st.integers(100, 300), min_size=1, max_size=8), fraction=st.floats(0.05, 0.9))
def test_stratified_takes_the_rounded_share_of_all(sizes: list[int], fraction: float) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert abs(int(stratified(labels, fraction=fraction, seed=0).sum()) - sum(sizes) * fraction) <= 0.5


@given(labels=labels_strategy, data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_balanced_is_as_even_as_the_classes_allow(labels: np.ndarray, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(1, len(labels)))
    chosen = balanced(labels, count=count, seed=seed)
    assert len(chosen) == count
    assert len(set(chosen.tolist())) == count
    assert np.array_equal(chosen, balanced(labels, count=count, seed=seed))
    given_by = np.bincount(labels[chosen], minlength=7)
    sizes = np.bincount(labels, minlength=7)
    not_used_up = given_by[given_by < sizes]
    if len(not_used_up):
        # No class that has images left gave less than another gave, but for the last incomplete turn.
        assert given_by.max() - not_used_up.min() <= 1


def test_balanced_is_in_random_order() -> None:
    labels = np.repeat(np.arange(4), 50)
    chosen = labels[balanced(labels, count=40, seed=0)]
    assert not np.array_equal(chosen, np.sort(chosen))
    assert not np.array_equal(chosen, np.tile(np.arange(4), 10))


names_strategy = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)


@given(names=names_strategy, fraction=fractions)
def test_hashed_leaves_no_side_empty(names: list[str], fraction: float) -> None:
    taken = hashed(names, fraction=fraction, salt="test")
    if len(names) == 1:
        assert not taken.any()
    else:
        assert taken.any()
        assert not taken.all()


def test_hashed_is_stable_and_proportional() -> None:
    names = [f"cat/{number}.jpg" for number in range(4000)]
    taken = dict(zip(names, hashed(names, fraction=0.2, salt="test"), strict=True))
    assert 700 < sum(taken.values()) < 900
    fewer = names[::3][::-1]
    assert hashed(fewer, fraction=0.2, salt="test").tolist() == [taken[name] for name in fewer]
    assert hashed(names, fraction=0.2, salt="validation 0").tolist() != list(taken.values())
