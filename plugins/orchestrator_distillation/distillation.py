"""Recovery training with the original as the teacher: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Need,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
)

if TYPE_CHECKING:
    from torch import nn

LEAST_EPOCHS = 0.001
STEPS = 2
"""The search tries the least, the middle and the most epochs that the budget pays for."""


class Distillation(TorchMethod):
    """Trains a network that was pruned or shortened until it answers like the original again.

    Classifiers learn the original's softened class probabilities, mixed with the labels where there are any; other networks
    learn all of its floating-point outputs. Neither needs labels.
    """

    name = "distillation"
    version = 1
    family = "distillation"
    summary = "Recovery training with the original as the teacher (Hinton et al. 2015)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="epochs",
            help="passes over the train split; fractions are served",
            low=1,
            high=10,
            step=4.5,
            default=1,
            bounds=(LEAST_EPOCHS, 1000),
        ),
        Choice(
            name="learning_rate",
            help="peak of the schedule",
            choices=(0.001, 0.0003, 0.003),
        ),
        Choice(name="temperature", help="temperature of both softmax functions; for classifiers", choices=(4.0, 2.0)),
        Choice(name="label_weight", help="share of the task's own loss, the rest is the teacher's", choices=(0.0, 0.3)),
    )
    needs = frozenset({Need.TRAIN})
    after = frozenset({"morphology", "pruning"})
    requires = frozenset({"morphology", "pruning"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        least, most = context.epochs
        if most < LEAST_EPOCHS:
            raise Refused(f"{self.name}: the budget pays for no training; give the search more time")
        least = max(least, LEAST_EPOCHS)
        changes: dict[str, dict[str, object]] = {
            "epochs": {"low": least, "high": most, "step": max((most - least) / STEPS, 1e-3), "default": most}
        }
        if context.task.classes is None:
            changes["temperature"] = {"choices": (4.0,)}  # without classes there is no softmax
        if "train" not in context.task.labelled or context.task_loss is None:
            changes["label_weight"] = {"choices": (0.0,)}
        return narrowed(parameters, **changes)

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.losses import TeacherLoss

        loss = TeacherLoss.of(
            context, temperature=float(parameters["temperature"]), label_weight=float(parameters["label_weight"])
        )
        context.train(model, epochs=float(parameters["epochs"]), loss=loss, learning_rate=float(parameters["learning_rate"]))
        return model
