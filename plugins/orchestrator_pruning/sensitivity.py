"""How much a network suffers when one group of coupled layers alone loses channels.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", prune each layer by itself and look at the accuracy; here it is how far
the outputs move, which needs no labels. Imported only where a network is at hand: it loads torch.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import Inputs, distance, macs, run
from orchestrator_pruning.coupled import Coupling, Group, differentiable
from orchestrator_pruning.importance import NORMS, scores

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375)
"""Shares of its channels that each group loses in turn: coarser ones cost ResNet-20 three points of accuracy at half the work."""
WORK = 1e12
"""Multiply-accumulates that a table may cost (a minute or two): it decides on how many examples."""
PASSES = 4
"""Forward passes over the train split that a table may cost: a little more than one epoch, or it outlasts a short recovery."""
LEAST_EXAMPLES, MOST_EXAMPLES = 16, 256
Table = dict[str, list[list[float]]]


def table(importance: str, model: nn.Module, groups: Sequence[Group], context: "BuildContext") -> Table:
    """Measured once for a network, and kept: `{root: [[share removed, damage], ...]}`, growing in both, from [0, 0] on.

    The damage is `orchestrator.plugin.networks.distance` on sample inputs between the outputs of the network as it is and those
    with the least important channels of this one group silenced, batch norms normalising by the batch in both.

    Raises:
        MethodError: the task has no examples.
    """
    key = f"sensitivity {importance} " + " ".join(f"{g.root}:{g.channels}" for g in groups)
    found: Table = context.remember(key, lambda: _measure(importance, model, groups, context))
    return found


def _measure(importance: str, model: nn.Module, groups: Sequence[Group], context: "BuildContext") -> Table:
    model = copy.deepcopy(model)
    with differentiable(model):
        coupling = Coupling(model, context.forward, context.example)
        ranks = [torch.argsort(score, stable=True) for score in scores(importance, model, coupling, groups, context)]
        inputs = _inputs(model, groups, context)
        _normalise_by_batch(model, inputs)
        before = run(model, context.forward, inputs)
        curves: Table = {}
        for group, rank in zip(groups, ranks, strict=True):
            curve = [[0.0, 0.0]]
            for share in SHARES:
                count = min(round(share * group.units), group.units - 1)
                if count / group.units <= curve[-1][0]:
                    continue  # a narrow group: this share was already measured
                gone = group.expand(sorted(rank[:count].tolist()))
                damage = distance(before, coupling.silence({group.root: gone}, inputs))
                curve.append([count / group.units, max(damage, curve[-1][1])])
            curves[group.root] = curve
    return curves


def _normalise_by_batch(model: nn.Module, inputs: Inputs) -> None:
    """Let batch norms use the batch's own statistics: whatever follows a pruning estimates them anew.

    With the old ones a network looks worse than it is, and not everywhere alike (Li et al. 2020, "EagleEye").
    """
    if len(next(iter(inputs.values()))) >= LEAST_EXAMPLES:
        for module in model.modules():
            if isinstance(module, NORMS):
                module.train()


def _inputs(model: nn.Module, groups: Sequence[Group], context: "BuildContext") -> Inputs:
    """One batch of samples, of as many as the work allows."""
    one = sum(macs(model, context.forward, context.example).values())
    forwards = WORK / max(one, 1)
    if "train" in context.task.examples:
        forwards = min(forwards, PASSES * context.task.examples["train"])
    count = int(min(max(forwards / max(len(groups) * len(SHARES), 1), LEAST_EXAMPLES), MOST_EXAMPLES))
    batch = next(iter(context.samples(count, count)), None)
    if batch is None:
        raise MethodError("sensitivities need examples, but the task has none")
    return batch[0]
