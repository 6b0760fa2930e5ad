"""Whether one classifier is more accurate than others on the same images, or whether the difference may be chance.

By McNemar's exact test on the images that one of two gets right and the other does not, at 5 %:

  best    more correct images than every peer, none of the differences chance
  worse   fewer correct images than some peer, the difference no chance
  equal   else
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from emb.bench import mcnemar

CHANCE = 0.05


def verdict(ours: NDArray[np.bool_], peers: Mapping[str, NDArray[np.bool_]]) -> str:
    """What emb's accuracy is beside that of its peers, in words; "no peer" if there is none.

    ours, peers: (n,) for each image whether the class is right.
    """
    if not peers:
        return "no peer"
    chances = {name: chance(ours, theirs) for name, theirs in peers.items()}
    ahead = {name: int(ours.sum()) - int(theirs.sum()) for name, theirs in peers.items()}
    strongest = min(peers, key=lambda name: (ahead[name], chances[name]))
    beaten_by = [name for name in peers if ahead[name] < 0 and chances[name] < CHANCE]
    if beaten_by:
        word, strongest = "worse", min(beaten_by, key=lambda name: ahead[name])
    elif all(ahead[name] > 0 and chances[name] < CHANCE for name in peers):
        word = "best"
    else:
        word = "equal"
    p_value = chances[strongest]
    # What a float cannot hold is not 0.
    shown = f"p = {p_value:.2g}" if p_value else "p < 1e-300"
    return f"{word}: {ahead[strongest]:+d} images against {strongest}, {shown}"


def chance(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The p-value of McNemar's test. first, second: (n,) for each image whether it is right."""
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
