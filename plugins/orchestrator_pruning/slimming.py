"""Network slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming")."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
    plural,
)
from orchestrator_pruning.surgery import channel_multiple, cut, sound_groups

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_pruning.coupled import Group

LEAST_EPOCHS = 0.001
SHARE_OF_EPOCHS = 1 / 2
"""Of the epochs that a recovery may take: the network is trained again after the pruning."""
LEARNING_RATE = 0.001


class NetworkSlimming(TorchMethod):
    """Trains with a penalty on the scales of batch norms, then removes the channels whose scales have become small.

    The penalty is the sum of the scales' magnitudes, so that training itself decides which channels it can do without. Labels are
    used where there are any, else the original is the teacher. Layers without a batch norm stay whole.
    """

    name = "network-slimming"
    version = 1
    family = "pruning"
    summary = "Trains batch-norm scales towards zero, then removes the channels of least scale (Liu et al. 2017)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="ratio",
            cheaper="high",
            help="share of the channels behind batch norms that is removed, before rounding to the target's channel multiple",
            low=0.1,
            high=0.7,
            step=0.1,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        Choice(name="penalty", help="weight of the scales' sum of magnitudes in the loss", choices=(0.001, 0.0001, 0.01)),
        Number(
            name="epochs",
            help="passes over the train split with the penalty; fractions are served",
            low=1,
            high=1,
            step=1,
            default=1,
            bounds=(LEAST_EPOCHS, 1000),
        ),
    )
    needs = frozenset({Need.TRAIN})
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})
    usual = False
    learns_structure = True

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_pruning.plan import uniform

        if context.epochs[1] < LEAST_EPOCHS:
            raise Refused(f"{self.name}: the budget pays for no training; give the search more time")
        try:
            groups = _normed_groups(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        high = max(p.high for p in parameters if isinstance(p, Number) and p.name == "ratio")
        stay = uniform(groups, high, channel_multiple(context.target))
        if all(stay[group.root] == group.channels for group in groups):
            raise Refused("no batch norm lies over channels that can be removed")
        epochs = max(round(SHARE_OF_EPOCHS * context.epochs[1], 4), LEAST_EPOCHS)
        return narrowed(
            parameters, epochs={"low": epochs, "high": epochs, "default": epochs}, penalty={"choices": (0.001, 0.0001)}
        )

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        trained = f"after {plural(parameters['epochs'], 'epoch')} that push these scales to zero"
        return f"channels -{percent(parameters['ratio'])} by batch-norm scale, {trained}"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_pruning.coupled import Coupling, differentiable
        from orchestrator_pruning.importance import scores
        from orchestrator_pruning.plan import ranked

        groups, multiple = _normed_groups(model, context), channel_multiple(context.target)
        if not groups:
            raise MethodError(f"{self.name}: no batch norm lies over channels that can be removed")
        loss = _PenalisedLoss(_scales(model, groups, context), float(parameters["penalty"]), context)
        context.train(model, epochs=float(parameters["epochs"]), loss=loss, learning_rate=LEARNING_RATE)
        with differentiable(model):
            coupling = Coupling(model, context.forward, context.example)
            found = scores("batch-norm-scale", model, coupling, groups, context)
        stay = ranked(groups, found, float(parameters["ratio"]), multiple)
        if all(stay[group.root] == group.channels for group in groups):
            raise MethodError(
                f"{self.name}: ratio {parameters['ratio']} removes no channel in multiples of {multiple}; choose a higher ratio"
            )
        cut(model, groups, "batch-norm-scale", stay, context)
        return model


class _PenalisedLoss:
    """The task's loss, or the distance to the original where there are no labels, and the magnitudes of all scales."""

    def __init__(self, scales: "list[nn.Parameter]", penalty: float, context: BuildContext) -> None:
        from orchestrator.plugin.losses import TeacherLoss

        self._scales, self._penalty = scales, penalty
        self._loss = TeacherLoss.of(context, label_weight=1.0)

    def __call__(self, outputs: Any, inputs: "Mapping[str, Tensor]", labels: "Tensor | None") -> "Tensor":
        import torch

        loss = self._loss(outputs, inputs, labels)
        return loss + self._penalty * torch.stack([scale.abs().sum() for scale in self._scales]).sum()


def _normed_groups(model: "nn.Module", context: BuildContext) -> "list[Group]":
    """The prunable groups with a batch norm over their channels."""
    from orchestrator_pruning.coupled import Coupling, differentiable
    from orchestrator_pruning.importance import normed

    groups = sound_groups(model, context)
    with differentiable(model):
        coupling = Coupling(model, context.forward, context.example)
        return [group for group in groups if normed(coupling, group)]


def _scales(model: "nn.Module", groups: "list[Group]", context: BuildContext) -> "list[nn.Parameter]":
    """The scales of their batch norms, each once, in the order of the network."""
    from orchestrator_pruning.coupled import Coupling, differentiable
    from orchestrator_pruning.importance import normed

    with differentiable(model):
        coupling = Coupling(model, context.forward, context.example)
        names = {member.name for group in groups for member in normed(coupling, group)}
    return [model.get_parameter(f"{name}.weight") for name, _ in model.named_modules() if name in names]
