"""Network slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming")."""

from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    narrowed,
    number,
    percent,
    plural,
)
from orchestrator.plugin.training import LEAST_EPOCHS, epochs_range, epochs_share
from orchestrator_pruning.base import PruningMethod, channel_multiple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from orchestrator.plugin.channel_groups import ChannelGroup

SHARE_OF_EPOCHS = 1 / 2
"""Searched epochs as a share of those of a recovery, which follows the pruning."""
LEARNING_RATE = 0.001


class NetworkSlimming(PruningMethod):
    """Trains with an L1 penalty on the scales of batch norms, then removes the channels of least scale (Liu et al. 2017).

    The training itself decides which channels are dispensable. The loss is the task's where there are labels, else the distance
    to the original. Layers without a batch norm keep their width.
    """

    name = "network-slimming"
    version = 1
    reads = frozenset({"target.channel_multiple", "task_loss", "train"})
    summary = "Trains batch-norm scales towards zero, then removes the channels of least scale (Liu et al. 2017)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="ratio",
            cheaper="high",
            help="removed share of the channels with a batch norm, before rounding to the target's channel multiple",
            low=0.1,
            high=0.7,
            step=0.1,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        Choice(name="penalty", help="weight of the L1 norm of the scales in the loss", choices=(0.001, 0.0001, 0.01)),
        Number(
            name="epochs",
            help="passes over the train split with the penalty; may be a fraction",
            low=1,
            high=1,
            step=1,
            default=1,
            bounds=(LEAST_EPOCHS, 1000),
        ),
    )
    needs = frozenset({Need.TRAIN})
    usual = False
    learns_structure = True

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_pruning import plan

        epochs_range(context)  # refuses if the budget affords none
        groups, _ = _normalised_groups(model, context)
        widths = plan.uniform(groups, number(parameters, "ratio").high, channel_multiple(context.target))
        if not plan.prunes(groups, widths):
            raise Refused("no batch norm normalises channels that can be removed")
        return narrowed(parameters, epochs=epochs_share(context, SHARE_OF_EPOCHS), penalty={"choices": (0.001, 0.0001)})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        trained = f"after {plural(parameters['epochs'], 'epoch')} with a penalty on these scales"
        return f"channels -{percent(parameters['ratio'])} by batch-norm scale, {trained}"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.channel_groups import channel_graph
        from orchestrator_pruning import importance, plan, pruner

        groups, norms = _normalised_groups(model, context)
        if not groups:
            raise MethodError(f"{self.name}: no batch norm normalises channels that can be removed")
        scales = [model.get_parameter(f"{name}.weight") for name, _ in model.named_modules() if name in norms]
        loss = _PenalisedLoss(scales, float(parameters["penalty"]), context)
        context.train(model, epochs=float(parameters["epochs"]), loss=loss, learning_rate=LEARNING_RATE)
        multiple = channel_multiple(context.target)
        with channel_graph(model, context) as graph:
            scores = importance.scores("batch-norm-scale", model, graph, groups, context)
        widths = plan.ranked(groups, scores, float(parameters["ratio"]), multiple)
        if not plan.prunes(groups, widths):
            raise MethodError(
                f"{self.name}: ratio={parameters['ratio']} removes no channel in multiples of {multiple}; choose a higher ratio"
            )
        pruner.prune(model, groups, "batch-norm-scale", widths, context)
        return model


class _PenalisedLoss:
    """Loss of the task, or distance to the original if there are no labels, plus the L1 norm of all scales."""

    def __init__(self, scales: "list[nn.Parameter]", penalty: float, context: BuildContext) -> None:
        from orchestrator.plugin.losses import TeacherLoss

        self._scales, self._penalty = scales, penalty
        self._loss = TeacherLoss.of(context, label_weight=1.0)

    def __call__(self, outputs: Any, inputs: "Mapping[str, Tensor]", labels: "Tensor | None") -> "Tensor":
        import torch

        loss = self._loss(outputs, inputs, labels)
        return loss + self._penalty * torch.stack([scale.abs().sum() for scale in self._scales]).sum()


def _normalised_groups(model: "nn.Module", context: BuildContext) -> "tuple[list[ChannelGroup], set[str]]":
    """Return the removable groups with a batch norm, and the names of their batch norms."""
    from orchestrator.plugin.channel_groups import channel_graph, removable_groups
    from orchestrator_pruning.importance import batch_norms

    groups = removable_groups(model, context)
    with channel_graph(model, context) as graph:
        norms = {group.root: [member.name for member in batch_norms(graph, group)] for group in groups}
    return [group for group in groups if norms[group.root]], {name for names in norms.values() for name in names}
