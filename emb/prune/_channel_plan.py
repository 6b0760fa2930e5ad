"""What is decided about channels, as values: scores and plans. Knows no keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from emb.errors import ModelError
from emb.prune._channel_graph import ChannelGraph, Kept
from emb.prune._criteria import Criterion
from emb.prune._dense_layers import dense_layers

Scope = Literal["global", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What each decision of a group is worth; computed once for any number of plans.

    groups: by the group's name, one number for each decision, in the order of its channels.
    wholes: of the groups that can go as a whole, see emb.prune._dense_layers, what each is worth beside the others.
    unscored: groups of which the criterion says nothing, and why; they are left whole.
    """

    criterion: Criterion
    groups: Mapping[str, tuple[float, ...]]
    wholes: Mapping[str, float] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlan:
    """Which channels stay. A group is named by the first layer that makes its channels.

    kept: group -> the channels of that layer which stay, ascending; none where the layer itself goes.
    channels: group -> how many it had.
    tied: group -> the layers that lose filters with it, itself first.
    untouched: layer -> why all or some of its channels cannot go.
    macs_before, macs_after: of the model that the plan is for, by emb.graph.cost.
    """

    kept: Mapping[str, tuple[int, ...]]
    channels: Mapping[str, int]
    tied: Mapping[str, tuple[str, ...]]
    untouched: Mapping[str, str]
    macs_before: int
    macs_after: int

    def to_json(self) -> dict[str, Any]:
        return {
            "macs_before": self.macs_before,
            "macs_after": self.macs_after,
            "groups": [
                {
                    "name": name,
                    "layers": list(self.tied[name]),
                    "channels_before": self.channels[name],
                    "channels_kept": list(kept),
                }
                for name, kept in self.kept.items()
            ],
            "untouched": dict(self.untouched),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group without its least channels. removed: how many of its channels.  rate: the share that was asked for."""

    group: str
    layers: tuple[str, ...]
    rate: float
    channels: int
    removed: int
    accuracy: float


def kept_of(graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]], *, name: str) -> Kept:
    """For each channel of the graph whether a plan keeps it. Raises ModelError if the plan is not for this graph."""
    result = graph.everything()
    groups = {group.name: group for group in graph.groups}
    going = {group_name for group_name, places in kept.items() if not places}
    can_go = {one for group_name, ones in dense_layers(graph).items() if group_name in going for one in ones}
    for group_name, places in kept.items():
        group = groups.get(group_name)
        staying = set(places)
        known = set().union(*group.channels) if group is not None else set()
        if group is None or not staying <= known or not (staying or can_go.issuperset(group.decisions.tolist())):
            raise ModelError(
                f"the plan does not fit the model {name}",
                why=f"it keeps channels {_some(places)} of the group {group_name}, which has {_some(sorted(known))}",
                fix="make a plan for this model, with the scores of this model",
            )
        result[group.decisions] = [staying.issuperset(channels) for channels in group.channels]
    return result


def _some(places: Sequence[int]) -> str:
    """The first few of them."""
    shown = ", ".join(map(str, places[:4]))
    return (shown + (", ..." if len(places) > 4 else "")) or "none"
