"""A pruning ratio for each group of coupled layers, so that the search finds the shares that a rule would have to guess.

He et al. 2018, "AMC: AutoML for Model Compression", search the share of every layer; here the groups of a dependency graph (Fang
et al. 2023, "DepGraph") take the layers' place.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    percent,
)
from orchestrator_pruning.channel import IMPORTANCE
from orchestrator_pruning.surgery import channel_multiple, cost_of, cut, sound_groups

if TYPE_CHECKING:
    from torch import nn

    from orchestrator_pruning.coupled import Group

PREFIX = "ratio:"
MOST_GROUPS = 24
"""So many dimensions a search can still tell apart; of more groups those whose channels cost the most work are offered."""
TOLERATED = 0.5
"""The search goes no further in a group than to this damage (`networks.distance` of the outputs, 0: none) by this group alone."""


class GroupPruning(TorchMethod):
    """Prunes each group of coupled layers by a ratio of its own.

    The ratios are named by the groups' root layers (`ratio:layer1.0.conv1`); a group that is not named stays whole. Of a network
    with more than 24 groups those are offered to the search whose channels cost the most multiply-accumulates; a recipe may name
    any. A group whose loss alone moves the outputs far is offered less.
    """

    name = "group-pruning"
    version = 2
    family = "pruning"
    summary = "Removes a searched share of channels from each group of coupled layers (He et al. 2018, AMC)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name=f"{PREFIX}*",
            cheaper="high",
            help="share of the channels of this group of coupled layers that is removed, before rounding to the target's channel "
            "multiple; of more than 24 groups the 24 with the most work are searched",
            low=0.0,
            high=0.7,
            step=0.1,
            default=0.3,
            bounds=(0.0, 0.95),
        ),
        IMPORTANCE,
    )
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_pruning.plan import uniform
        from orchestrator_pruning.sensitivity import table

        pattern = next(p for p in parameters if isinstance(p, Number) and p.name == f"{PREFIX}*")
        importance = next(p for p in parameters if isinstance(p, Choice))
        try:
            groups = sound_groups(model, context)
            most = uniform(groups, pattern.high, channel_multiple(context.target))
            groups = _dearest([g for g in groups if most[g.root] < g.channels], model, context)
            if not groups:
                raise Refused("no group of layers can lose channels in multiples of the target's, or norms and heads bind them")
            curves = table(str(importance.start), model, groups, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        offered: list[Parameter] = []
        for group in groups:
            high = max(_tolerated(curves[group.root], pattern), 2 * pattern.step)
            offered.append(replace(pattern, name=PREFIX + group.root, high=min(high, pattern.high)))
        return (*offered, replace(importance, choices=(importance.start,)))

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        shares = [float(value) for name, value in parameters.items() if name.startswith(PREFIX)]
        if not shares:
            return ""
        return f"channels -{percent(min(shares))} to -{percent(max(shares))}, by a share of its own for each group of layers"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_pruning.plan import kept, step

        ratios = {name.removeprefix(PREFIX): float(value) for name, value in parameters.items() if name.startswith(PREFIX)}
        groups = {group.root: group for group in sound_groups(model, context)}
        for root in ratios:
            if root not in groups:
                raise MethodError(f"{self.name}: no group of channels is named {root!r}; there are {', '.join(groups) or 'none'}")
        multiple = channel_multiple(context.target)
        stay = {}
        for root, ratio in ratios.items():
            group = groups[root]
            stay[root] = kept(group.channels, group.channels * (1 - ratio), step(group, multiple))
        named = [groups[root] for root in groups if root in ratios]
        if all(stay[group.root] == group.channels for group in named):
            raise MethodError(f"{self.name}: these ratios remove no channel in multiples of {multiple}; choose higher ones")
        cut(model, named, str(parameters["importance"]), stay, context)
        return model


def _dearest(groups: "list[Group]", model: "nn.Module", context: BuildContext) -> "list[Group]":
    """Those whose channels cost the most work, in the order of the network."""
    if len(groups) <= MOST_GROUPS:
        return groups
    cost = cost_of(model, groups, context)
    ranked = sorted(groups, key=lambda g: -cost.saved(g.root, g.channels // 2, {}))
    chosen = {group.root for group in ranked[:MOST_GROUPS]}
    return [group for group in groups if group.root in chosen]


def _tolerated(curve: list[list[float]], pattern: Number) -> float:
    """The highest searched ratio whose damage by this group alone is tolerated."""
    from orchestrator_pruning.plan import damage

    ratios = [round(pattern.low + k * pattern.step, 6) for k in range(pattern.count())]
    return max((r for r in ratios if damage(curve, r) <= TOLERATED), default=pattern.low)
