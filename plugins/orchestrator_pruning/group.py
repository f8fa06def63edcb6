"""A pruning ratio for each group of coupled layers, chosen by the search.

He et al. 2018, "AMC: AutoML for Model Compression", search a ratio for every layer; here, for each group of a dependency graph
(Fang et al. 2023, "DepGraph").
"""

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    Parameters,
    ParameterValues,
    Refused,
    number,
    percent,
)
from orchestrator_pruning.base import PruningMethod, channel_multiple
from orchestrator_pruning.channel import IMPORTANCE

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.plugin.channel_groups import ChannelGroup

PREFIX = "ratio:"
MOST_GROUPS = 24
"""Largest number of groups in the search; of more, those whose channels cost most multiply-accumulates are searched."""
TOLERATED = 0.5
"""Largest damage by one group alone (`networks.distance` of the outputs, 0: none) that the search range of its ratio includes."""


class GroupPruning(PruningMethod):
    """Prunes each group of coupled layers by a ratio of its own (He et al. 2018, AMC).

    The ratios are named by the groups' root layers (`ratio:layer1.0.conv1`); a group that is not named keeps its width. In a
    network with more than 24 groups, the search includes the 24 whose channels cost most multiply-accumulates; a recipe may name
    any group. The search range of a group is shorter if its removal alone changes the outputs strongly.
    """

    name = "group-pruning"
    version = 2
    reads = frozenset({"target.channel_multiple", "task_loss"})
    summary = "Removes a searched share of channels from each group of coupled layers (He et al. 2018, AMC)."
    parameters: ClassVar[Parameters] = (
        Number(
            name=f"{PREFIX}*",
            cheaper="high",
            help="removed share of the channels of this group of coupled layers, before rounding to the target's channel "
            "multiple; of more than 24 groups the 24 with most multiply-accumulates are searched",
            low=0.0,
            high=0.7,
            step=0.1,
            default=0.3,
            bounds=(0.0, 0.95),
        ),
        IMPORTANCE,
    )
    usual = False

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.channel_groups import removable_groups
        from orchestrator_pruning import plan, sensitivity

        pattern = number(parameters, f"{PREFIX}*")
        importance = next(p for p in parameters if isinstance(p, Choice))
        groups = removable_groups(model, context)
        widths = plan.uniform(groups, pattern.high, channel_multiple(context.target))
        groups = _most_expensive([g for g in groups if widths[g.root] < g.channels], model, context)
        if not groups:
            raise Refused("no group of layers can lose channels in multiples of the target's, or norms and heads couple them")
        curves = sensitivity.sensitivities(str(importance.start), model, groups, context)
        ratios: list[Parameter] = []
        for group in groups:
            tolerated = [r for r in map(float, pattern.values()) if plan.damage(curves[group.root], r) <= TOLERATED]
            high = max(max(tolerated, default=pattern.low), 2 * pattern.step)
            ratios.append(replace(pattern, name=PREFIX + group.root, high=min(high, pattern.high)))
        return (*ratios, replace(importance, choices=(importance.start,)))

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        shares = [float(value) for name, value in parameters.items() if name.startswith(PREFIX)]
        if not shares:
            return ""
        return f"channels -{percent(min(shares))} to -{percent(max(shares))}, by a share of its own for each group of layers"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.channel_groups import nearest_width, removable_groups
        from orchestrator_pruning import plan, pruner

        ratios = {name.removeprefix(PREFIX): float(value) for name, value in parameters.items() if name.startswith(PREFIX)}
        groups = {group.root: group for group in removable_groups(model, context)}
        for root in ratios:
            if root not in groups:
                known = ", ".join(groups) or "none"
                raise MethodError(f"{self.name}: no group of channels is named {root!r}; there are {known}")
        multiple = channel_multiple(context.target)
        named = [group for root, group in groups.items() if root in ratios]
        widths = {g.root: nearest_width(g.channels, g.channels * (1 - ratios[g.root]), plan.step(g, multiple)) for g in named}
        if not plan.prunes(named, widths):
            raise MethodError(f"{self.name}: these ratios remove no channel in multiples of {multiple}; choose higher ones")
        pruner.prune(model, named, str(parameters["importance"]), widths, context)
        return model


def _most_expensive(groups: "list[ChannelGroup]", model: "nn.Module", context: BuildContext) -> "list[ChannelGroup]":
    """Return the groups whose channels cost most multiply-accumulates, in the network's order."""
    from orchestrator_pruning.pruner import cost_of

    if len(groups) <= MOST_GROUPS:
        return groups
    cost = cost_of(model, groups, context)
    ranked = sorted(groups, key=lambda g: -cost.saved(g.root, g.channels // 2, {}))
    chosen = {group.root for group in ranked[:MOST_GROUPS]}
    return [group for group in groups if group.root in chosen]
