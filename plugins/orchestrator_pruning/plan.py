"""Widths of channel groups after pruning. Imports torch; imported on use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.plugin.channel_groups import ChannelGraph, ChannelGroup, Removal, nearest_width

LEAST_SHARE = 0.1
"""Least share of its channels that a group keeps when all groups are ranked together: no layer may vanish."""
LEVELS = 32
"""Different widths of a group that are considered when ratios are balanced against each other."""

Curve = Sequence[Sequence[float]]
"""`((removed share, damage), ...)`, both increasing, from (0, 0) on."""


def step(group: ChannelGroup, multiple: int) -> int:
    """Return the least common multiple of the target's channel multiple and the group's grouped convolutions."""
    return math.lcm(multiple, group.parts)


def prunes(groups: Sequence[ChannelGroup], widths: Mapping[str, int]) -> bool:
    """Return True if a plan removes a channel of any group."""
    return any(widths[group.root] < group.channels for group in groups)


def uniform(groups: Sequence[ChannelGroup], ratio: float, multiple: int) -> dict[str, int]:
    """Return the width of each root when every group loses the same share of its channels."""
    return {g.root: nearest_width(g.channels, g.channels * (1 - ratio), step(g, multiple)) for g in groups}


def ranked(groups: Sequence[ChannelGroup], scores: Sequence[Tensor], ratio: float, multiple: int) -> dict[str, int]:
    """Return the width of each root when the least important channels of all groups together are removed.

    Args:
        groups: Groups of the network.
        scores: Importance of each position of each group, comparable between groups.
        ratio: Removed share of all channels.
        multiple: Channel multiple of the target.
    """
    if not groups:
        return {}
    order = torch.cat([s.repeat(g.parts) for g, s in zip(groups, scores, strict=True)]).sort().values
    threshold = float(order[min(int(ratio * len(order)), len(order) - 1)])
    widths = {}
    for group, score in zip(groups, scores, strict=True):
        exact = max(int((score >= threshold).sum()) * group.parts, LEAST_SHARE * group.channels)
        widths[group.root] = nearest_width(group.channels, exact, step(group, multiple))
    return widths


def least_important(groups: Sequence[ChannelGroup], scores: Sequence[Tensor], widths: Mapping[str, int]) -> Removal:
    """Return the least important channels of each root, so many that the planned widths remain."""
    removal: dict[str, list[int]] = {}
    for group, score in zip(groups, scores, strict=True):
        units = widths.get(group.root, group.channels) // group.parts
        if units < group.units:
            order = torch.argsort(score, stable=True)
            removal[group.root] = group.expand(sorted(order[: group.units - units].tolist()))
    return removal


@dataclass(frozen=True, slots=True)
class _Use:
    """Share of a layer's output or input channels that belong to a group."""

    root: str
    output: bool
    share: float


class Cost:
    """Multiply-accumulates of a network as a function of the widths of its groups.

    Args:
        macs: Of each layer for one example, before pruning (`orchestrator.plugin.networks.macs`).
        graph: Dependency graph of the network.
        groups: Groups whose widths may change.
    """

    def __init__(self, macs: Mapping[str, int], graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        self._macs = macs
        self._channels = {group.root: group.channels for group in groups}
        self._uses: dict[str, list[_Use]] = {}
        self._layers: dict[str, set[str]] = {group.root: set() for group in groups}
        for group in groups:
            for member in graph.members(group):
                if member.name in macs:
                    share = len(member.channels) / _width(member.module, member.outputs)
                    self._uses.setdefault(member.name, []).append(_Use(group.root, member.outputs, share))
                    self._layers[group.root].add(member.name)

    @property
    def total(self) -> int:
        """Multiply-accumulates before pruning."""
        return sum(self._macs.values())

    def at(self, widths: Mapping[str, int]) -> float:
        """Return the multiply-accumulates at those widths of roots; other roots keep all channels."""
        return self.total - sum(self._macs[layer] - self._of(layer, widths) for layer in self._uses)

    def saved(self, root: str, width: int, widths: Mapping[str, int]) -> float:
        """Return the multiply-accumulates saved by narrowing `root` to `width` when the others are at `widths`."""
        after = {**widths, root: width}
        return sum(self._of(layer, widths) - self._of(layer, after) for layer in self._layers[root])

    def _of(self, layer: str, widths: Mapping[str, int]) -> float:
        remaining = {True: 1.0, False: 1.0}
        for use in self._uses[layer]:
            channels = self._channels[use.root]
            remaining[use.output] -= use.share * (1 - widths.get(use.root, channels) / channels)
        return self._macs[layer] * remaining[True] * remaining[False]


def _width(layer: nn.Module, outputs: bool) -> int:
    names = ("out_channels", "out_features") if outputs else ("in_channels", "in_features")
    return int(getattr(layer, names[0], None) or getattr(layer, names[1]))


def balanced(
    groups: Sequence[ChannelGroup], curves: Mapping[str, Curve], cost: Cost, ratio: float, multiple: int
) -> dict[str, int]:
    """Return the widths at which one more saved multiply-accumulate does the same damage in every group.

    Greedy: the group with the least damage per saved multiply-accumulate, along the lower convex hull of its curve, is narrowed
    by one level, until the ratio is reached.

    Args:
        groups: Groups of the network.
        curves: Damage curve of each root.
        cost: Multiply-accumulates of the network.
        ratio: Share of all multiply-accumulates to remove, as nearly as the widths allow.
        multiple: Channel multiple of the target.
    """
    levels = {g.root: _levels(g, multiple) for g in groups}
    size = {g.root: g.channels for g in groups}
    widths, target = dict(size), cost.total * (1 - ratio)
    current = cost.at(widths)
    while True:
        best: tuple[float, str, int] | None = None
        for root, counts in levels.items():
            below = [count for count in counts if count < widths[root]]
            before = damage(curves[root], 1 - widths[root] / size[root])
            for count in below:
                saved = cost.saved(root, count, widths)
                if saved <= 0 or abs(current - saved - target) >= abs(current - target):
                    break  # it saves nothing, or overshoots the target by more than the present gap
                slope = max(damage(curves[root], 1 - count / size[root]) - before, 0.0) / saved
                if best is None or slope < best[0]:
                    best = (slope, root, below[0])
        if best is None:
            return widths
        _, root, count = best  # one level only: the target may lie before the end of the hull
        current -= cost.saved(root, count, widths)
        widths[root] = count


def largest_ratio(groups: Sequence[ChannelGroup], cost: Cost, multiple: int) -> float:
    """Return the largest share of the network's multiply-accumulates that can be removed."""
    least = {group.root: _levels(group, multiple)[-1] for group in groups}
    return 1 - cost.at(least) / max(cost.total, 1)


def _levels(group: ChannelGroup, multiple: int) -> list[int]:
    ratios = [k / LEVELS for k in range(1, LEVELS + 1) if 1 - k / LEVELS >= LEAST_SHARE]
    return sorted({uniform([group], ratio, multiple)[group.root] for ratio in ratios}, reverse=True)


def damage(curve: Curve, share: float) -> float:
    """Return the damage at a removed share: linear between the measured points, and extrapolated beyond the last one."""
    for index in range(1, len(curve)):
        (x0, y0), (x1, y1) = curve[index - 1], curve[index]
        if share <= x1 or index == len(curve) - 1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    return 0.0
