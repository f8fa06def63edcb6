"""Recovery training with the original as the teacher: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

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
    plural,
)

if TYPE_CHECKING:
    from torch import nn

LEAST_EPOCHS = 0.001
STEPS = 2
"""The search tries the least, the middle and the most epochs that the budget pays for."""
HARD = 1.0
USUAL_RATES: dict[str, float] = {"adamw": 1e-3, "sgd": 0.05}
HINT_WEIGHTS = {"attention": 1.0, "features": 0.3}
"""Of the mean gap, beside an output loss of about 1: found on small networks, where twice and half of it did the same."""


class Distillation(TorchMethod):
    """Trains a network that was pruned, changed or replaced by a student until it answers like the original.

    Classifiers learn the original's softened class probabilities, mixed with the labels where there are any (all labels and no
    teacher at a label weight of 1); other networks learn all of its floating-point outputs. Neither needs labels. Besides, the
    last maps of each resolution can be matched: where they are active, or what they hold.
    """

    name = "distillation"
    version = 2
    family = "distillation"
    reads = frozenset({"task_loss", "train"})
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
        Choice(name="optimizer", help="AdamW, or SGD with momentum, for networks with batch norm", choices=("adamw", "sgd")),
        Number(
            name="rate",
            help="peak of the learning rate, in units of the optimizer's usual one: 0.001 of AdamW, 0.05 of SGD",
            low=0.5,
            high=2,
            step=0.5,
            default=1,
            bounds=(1e-3, 100),
        ),
        Choice(name="schedule", help="of the learning rate", choices=("one-cycle", "cosine")),
        Choice(
            name="label_weight",
            help="share of the task's own loss, the rest is the teacher's; 1: labels alone",
            choices=(0.0, 0.1, 0.3, HARD),
        ),
        Choice(
            name="temperature",
            help="temperature of both softmax functions; for classifiers",
            choices=(4.0, 2.0, 8.0),
            only_if=("label_weight", 0.0, 0.1, 0.3),
        ),
        Choice(
            name="hints",
            help="what is matched besides the outputs at the end of each resolution: where the maps are active "
            "(Zagoruyko and Komodakis 2017), or what they hold (Romero et al. 2015; Tung and Mori 2019)",
            choices=("none", "attention", "features"),
        ),
    )
    needs = frozenset({Need.TRAIN})
    after = frozenset({"morphology", "pruning"})
    before = frozenset({"graph", "quantization"})
    requires = frozenset({"morphology", "pruning"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_distillation.hints import stages

        least, most = context.epochs
        if most < LEAST_EPOCHS:
            raise Refused(f"{self.name}: the budget pays for no training; give the search more time")
        least = max(least, LEAST_EPOCHS)
        changes: dict[str, dict[str, object]] = {
            "epochs": {"low": least, "high": most, "step": max((most - least) / STEPS, 1e-3), "default": most},
            "schedule": {"choices": ("one-cycle",)},  # cosine is served, but no better: not worth a dimension of the search
            "optimizer": {"choices": ("sgd", "adamw") if _has_batch_norm(model) else ("adamw",)},
        }
        if context.task.classes is None:
            changes["temperature"] = {"choices": (4.0,)}  # without classes there is no softmax
        labelled = "train" in context.task.labelled and context.task_loss is not None
        changes["label_weight"] = {"choices": (0.0, 0.1, 0.3) if labelled else (0.0,)}
        if not stages(model, context.forward, context.example):
            changes["hints"] = {"choices": ("none",)}
        return narrowed(parameters, **changes)

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        alone = " on the labels alone" if parameters["label_weight"] == HARD else ""
        hints = f" with {parameters['hints']} as hints" if parameters["hints"] != "none" else ""
        return f"{plural(parameters['epochs'], 'epoch')} of recovery{alone}{hints}"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator_distillation.hints import hinted, stages

        label_weight, kind = float(parameters["label_weight"]), str(parameters["hints"])
        if label_weight and (context.task_loss is None or "train" not in context.task.labelled):
            raise MethodError(f"{self.name}: label_weight {label_weight} needs labels, and the train split has none")
        optimizer: Literal["adamw", "sgd"] = "sgd" if parameters["optimizer"] == "sgd" else "adamw"
        schedule: Literal["one-cycle", "cosine"] = "cosine" if parameters["schedule"] == "cosine" else "one-cycle"
        loss = TeacherLoss.of(context, temperature=float(parameters.get("temperature", 4.0)), label_weight=label_weight)
        pairs: dict[str, str] = {}
        if kind != "none":
            if label_weight == HARD or context.original is None:
                raise MethodError(f"{self.name}: hints are the teacher's, and label_weight {HARD} asks no teacher")
            own = stages(model, context.forward, context.example)
            others = stages(context.original, context.forward, context.example)
            pairs = {own[places]: others[places] for places in own if places in others}
            if not pairs:
                raise MethodError(f"{self.name}: this network has no map of a resolution that the original has too")
        with hinted(
            loss,
            student=model,
            teacher=context.original or model,
            pairs=pairs,
            kind=kind,
            weight=HINT_WEIGHTS.get(kind, 0.0),
        ) as whole:
            context.train(
                model,
                epochs=float(parameters["epochs"]),
                loss=whole if pairs else loss,
                learning_rate=float(parameters["rate"]) * USUAL_RATES[optimizer],
                optimizer=optimizer,
                schedule=schedule,
            )
        return model


def _has_batch_norm(model: "nn.Module") -> bool:
    from torch import nn

    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for module in model.modules())
