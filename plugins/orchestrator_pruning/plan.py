"""How many channels each group of coupled layers keeps.

Imported only where a network is at hand: it loads torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator_pruning.coupled import Coupling, Group, Removal

LEAST_SHARE = 0.1
"""No group of layers keeps less than this share of its channels when all are ranked together: a layer must not vanish."""
LEVELS = 32
"""Different numbers of channels that are considered for a group when shares are weighed against each other."""


def kept(channels: int, wanted: float, step: int) -> int:
    """Channels that stay: of the multiples of `step` (at least one) and the whole layer, what is nearest to `wanted`."""
    if channels <= step:
        return channels
    lower = max(step, math.floor(wanted / step) * step)
    upper = min(channels, lower + step)
    return lower if wanted - lower < upper - wanted else upper


def step(group: Group, multiple: int) -> int:
    """Channels come and go in this number: a multiple of the target's and of the grouped convolutions'."""
    return math.lcm(multiple, group.parts)


def uniform(groups: Sequence[Group], ratio: float, multiple: int) -> dict[str, int]:
    """The same share of every group: `{root: channels that stay}`."""
    return {g.root: kept(g.channels, g.channels * (1 - ratio), step(g, multiple)) for g in groups}


def ranked(groups: Sequence[Group], scores: Sequence[Tensor], ratio: float, multiple: int) -> dict[str, int]:
    """The least important channels of all groups together: `{root: channels that stay}`.

    Args:
        scores: Importance of each position of each group, in one unit.
        ratio: Share of all channels that goes.
    """
    if not groups:
        return {}
    order = torch.cat([s.repeat(g.parts) for g, s in zip(groups, scores, strict=True)]).sort().values
    threshold = float(order[min(int(ratio * len(order)), len(order) - 1)])
    stay = {}
    for group, score in zip(groups, scores, strict=True):
        wanted = max(int((score >= threshold).sum()) * group.parts, LEAST_SHARE * group.channels)
        stay[group.root] = kept(group.channels, wanted, step(group, multiple))
    return stay


def removal(groups: Sequence[Group], scores: Sequence[Tensor], stay: Mapping[str, int]) -> Removal:
    """The channels of each root that go: those of least importance, so that as many stay as planned."""
    gone: dict[str, list[int]] = {}
    for group, score in zip(groups, scores, strict=True):
        left = stay.get(group.root, group.channels) // group.parts
        if left < group.units:
            order = torch.argsort(score, stable=True)
            gone[group.root] = group.expand(sorted(order[: group.units - left].tolist()))
    return gone


Curve = Sequence[Sequence[float]]
"""`((share removed, damage), ...)`, growing in both, from (0, 0) on."""


@dataclass(frozen=True, slots=True)
class _Use:
    """The share of a layer's output or input channels that belong to a group."""

    root: str
    layer: str
    output: bool
    share: float


class Cost:
    """Multiply-accumulates of a network when channels are gone, counted from the sizes of its layers.

    Args:
        macs: Of each layer for one example, as it is (`orchestrator.plugin.networks.macs`).
    """

    def __init__(self, macs: Mapping[str, int], coupling: Coupling, groups: Sequence[Group]) -> None:
        self._macs = macs
        self._channels = {group.root: group.channels for group in groups}
        self._uses: dict[str, list[_Use]] = {}
        self._layers: dict[str, list[str]] = {group.root: [] for group in groups}
        for group in groups:
            for member in coupling.members(group):
                if member.name in macs:
                    share = len(member.channels) / _width(member.module, member.gives)
                    self._uses.setdefault(member.name, []).append(_Use(group.root, member.name, member.gives, share))
                    self._layers[group.root].append(member.name)

    @property
    def whole(self) -> int:
        """With all channels."""
        return sum(self._macs.values())

    def left(self, stay: Mapping[str, int]) -> float:
        """With that many channels of each root (all where it is not named)."""
        return self.whole - sum(self._macs[layer] - self._of(layer, stay) for layer in self._uses)

    def saved(self, root: str, count: int, stay: Mapping[str, int]) -> float:
        """What is saved besides when `root` goes down to `count` channels and the others stay at `stay`."""
        layers, after = self._layers[root], {**stay, root: count}
        return sum(self._of(layer, stay) - self._of(layer, after) for layer in set(layers))

    def _of(self, layer: str, stay: Mapping[str, int]) -> float:
        left = {True: 1.0, False: 1.0}
        for use in self._uses[layer]:
            channels = self._channels[use.root]
            left[use.output] -= use.share * (1 - stay.get(use.root, channels) / channels)
        return self._macs[layer] * left[True] * left[False]


def _width(layer: nn.Module, outputs: bool) -> int:
    names = ("out_channels", "out_features") if outputs else ("in_channels", "in_features")
    return int(getattr(layer, names[0], None) or getattr(layer, names[1]))


def balanced(groups: Sequence[Group], curves: Mapping[str, Curve], cost: Cost, ratio: float, multiple: int) -> dict[str, int]:
    """Shares at which one more MAC saved does the same damage everywhere: `{root: channels that stay}`.

    Again and again the group goes on that does the least damage per MAC along the lower convex hull of its curve, until that
    share of the network's MACs is gone.

    Args:
        curves: Of each root.
        ratio: Share of all MACs that goes, as nearly as the channel counts allow.
    """
    levels = {g.root: _levels(g, multiple) for g in groups}
    size = {g.root: g.channels for g in groups}
    stay, target = dict(size), cost.whole * (1 - ratio)
    left = cost.left(stay)
    while True:
        best: tuple[float, str, int] | None = None
        for root, counts in levels.items():
            below = [count for count in counts if count < stay[root]]
            now = damage(curves[root], 1 - stay[root] / size[root])
            for count in below:
                saved = cost.saved(root, count, stay)
                if saved <= 0 or abs(left - saved - target) >= abs(left - target):
                    break  # it saves nothing, or goes further past the target than we are before it
                slope = max(damage(curves[root], 1 - count / size[root]) - now, 0.0) / saved
                if best is None or slope < best[0]:
                    best = (slope, root, below[0])
        if best is None:
            return stay
        _, root, count = best  # the hull may reach further, but the target may lie before its end
        left -= cost.saved(root, count, stay)
        stay[root] = count


def reach(groups: Sequence[Group], cost: Cost, multiple: int) -> float:
    """The largest share of the network's MACs that can go, when every group keeps what it must."""
    least = {group.root: _levels(group, multiple)[-1] for group in groups}
    return 1 - cost.left(least) / max(cost.whole, 1)


def _levels(group: Group, multiple: int) -> list[int]:
    shares = [k / LEVELS for k in range(1, LEVELS + 1) if 1 - k / LEVELS >= LEAST_SHARE]
    return sorted({kept(group.channels, group.channels * (1 - s), step(group, multiple)) for s in shares}, reverse=True)


def damage(curve: Curve, share: float) -> float:
    """Between the measured points a straight line, and beyond the last one the last line."""
    for index in range(1, len(curve)):
        (x0, y0), (x1, y1) = curve[index - 1], curve[index]
        if share <= x1 or index == len(curve) - 1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    return 0.0
