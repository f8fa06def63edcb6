"""Sensitivity of a network's outputs to the pruning of each group of coupled layers. Imports torch; imported on use.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", prune each layer alone and measure the accuracy; here the distance of
the outputs is measured, which needs no labels.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from orchestrator.plugin import MethodError
from orchestrator.plugin.channel_groups import ChannelGroup, channel_graph
from orchestrator.plugin.networks import BATCH_NORMS, Inputs, distance, macs, run
from orchestrator_pruning.importance import scores

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375)
"""Removed shares at which each group is measured: coarser ones cost ResNet-20 three points of accuracy at half the work."""
WORK = 1e12
"""Multiply-accumulates of one measurement (a minute or two): they limit the number of examples."""
PASSES = 4
"""Forward passes over the train split of one measurement, about one epoch: more would outlast a short recovery."""
LEAST_EXAMPLES, MOST_EXAMPLES = 16, 256
Curves = dict[str, list[list[float]]]


def sensitivities(importance: str, model: nn.Module, groups: Sequence[ChannelGroup], context: "BuildContext") -> Curves:
    """Return `{root: [[removed share, damage], ...]}`, both increasing, from [0, 0] on; measured once for a network.

    The damage is `orchestrator.plugin.networks.distance` on sample inputs between the outputs of the network and those with the
    least important channels of this group alone silenced; batch norms normalise by the batch in both.

    Raises:
        MethodError: The task has no examples.
    """
    key = f"sensitivity {importance} " + " ".join(f"{g.root}:{g.channels}" for g in groups)
    curves: Curves = context.remember(key, lambda: _measure(importance, model, groups, context))
    return curves


def _measure(importance: str, model: nn.Module, groups: Sequence[ChannelGroup], context: "BuildContext") -> Curves:
    model = copy.deepcopy(model)
    with channel_graph(model, context) as graph:
        ranks = [torch.argsort(score, stable=True) for score in scores(importance, model, graph, groups, context)]
        inputs = _inputs(model, groups, context)
        _normalise_by_batch(model, inputs)
        before = run(model, context.forward, inputs)
        curves: Curves = {}
        for group, rank in zip(groups, ranks, strict=True):
            curve = [[0.0, 0.0]]
            for share in SHARES:
                count = min(round(share * group.units), group.units - 1)
                if count / group.units <= curve[-1][0]:
                    continue  # already measured: the group is narrow
                channels = group.expand(sorted(rank[:count].tolist()))
                damage = distance(before, graph.silence({group.root: channels}, inputs))
                curve.append([count / group.units, max(damage, curve[-1][1])])
            curves[group.root] = curve
    return curves


def _normalise_by_batch(model: nn.Module, inputs: Inputs) -> None:
    """Let batch norms use the statistics of the batch, because any training after pruning estimates them anew.

    With the old statistics the damage is overestimated, and not equally in all layers (Li et al. 2020, "EagleEye").
    """
    if len(next(iter(inputs.values()))) >= LEAST_EXAMPLES:
        for module in model.modules():
            if isinstance(module, BATCH_NORMS):
                module.train()


def _inputs(model: nn.Module, groups: Sequence[ChannelGroup], context: "BuildContext") -> Inputs:
    """Return one batch of samples, of as many examples as the work allows."""
    forwards = WORK / max(sum(macs(model, context.forward, context.example).values()), 1)
    if "train" in context.task.examples:
        forwards = min(forwards, PASSES * context.task.examples["train"])
    count = int(min(max(forwards / max(len(groups) * len(SHARES), 1), LEAST_EXAMPLES), MOST_EXAMPLES))
    batch = next(iter(context.samples(count, count)), None)
    if batch is None:
        raise MethodError("sensitivities need examples, but the task has none; add a train or calibration split")
    return batch[0]
