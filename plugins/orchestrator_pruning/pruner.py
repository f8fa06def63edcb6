"""Pruning of channels to planned widths, with a check of the result. Imports torch; imported on use."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from orchestrator.plugin import BuildContext, MethodError
from orchestrator.plugin.channel_groups import ChannelGroup, channel_graph
from orchestrator.plugin.networks import macs, run, same
from orchestrator_pruning.importance import scores
from orchestrator_pruning.plan import Cost, least_important


def prune(
    model: nn.Module, groups: Sequence[ChannelGroup], importance: str, widths: Mapping[str, int], context: BuildContext
) -> list[ChannelGroup]:
    """Remove the least important channels of each group in place, down to the planned widths.

    Args:
        model: Network, changed in place.
        groups: Groups of the network.
        importance: Name of an importance measure.
        widths: `{root: channels after pruning}`; other groups do not change.
        context: Context of the build.

    Returns:
        The groups after pruning.

    Raises:
        MethodError: The pruned network does not compute what the network with these channels silenced computes.
    """
    with channel_graph(model, context) as graph:
        removal = least_important(groups, scores(importance, model, graph, groups, context), widths)
        silenced = graph.silence(removal)
        graph.prune(removal)
    if not same(silenced, run(model, context.forward, context.example)):
        raise MethodError("the outputs of the pruned network differ from those with its channels silenced; choose a lower ratio")
    return [replace(group, channels=widths.get(group.root, group.channels)) for group in groups]


def cost_of(model: nn.Module, groups: Sequence[ChannelGroup], context: BuildContext) -> Cost:
    """Return the multiply-accumulates of the network for one example as a function of the widths of these groups."""
    with channel_graph(model, context) as graph:
        return Cost(macs(model, context.forward, context.example), graph, groups)
