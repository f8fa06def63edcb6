"""Recovery training with the original as the teacher (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network")."""

from typing import TYPE_CHECKING, ClassVar, Literal

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    Number,
    Parameters,
    ParameterValues,
    TorchMethod,
    narrowed,
    plural,
)
from orchestrator.plugin.training import EPOCHS, epochs_range

if TYPE_CHECKING:
    from torch import nn

LABELS_ONLY = 1.0
USUAL_RATES: dict[str, float] = {"adamw": 1e-3, "sgd": 0.05}
HINT_WEIGHTS = {"attention": 1.0, "features": 0.3}
"""Weights of the mean gap beside an output loss of about 1, chosen on small networks, where half and double gave the same."""


class Distillation(TorchMethod):
    """Trains a pruned, changed or student network until its outputs are those of the original (Hinton et al. 2015).

    Classifiers learn the original's softened class probabilities, mixed with the labels if there are any (labels only at a label
    weight of 1); other networks learn all of its floating-point outputs. Neither needs labels. In addition, the last feature maps
    of each resolution can be matched: where they are active, or their values.
    """

    name = "distillation"
    version = 2
    family = "distillation"
    reads = frozenset({"task_loss", "train"})
    summary = "Recovery training with the original as the teacher (Hinton et al. 2015)."
    parameters: ClassVar[Parameters] = (
        EPOCHS,
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
            help="share of the task's own loss, the rest is the teacher's; 1: labels only",
            choices=(0.0, 0.1, 0.3, LABELS_ONLY),
        ),
        Choice(
            name="temperature",
            help="temperature of both softmax functions; for classifiers",
            choices=(4.0, 2.0, 8.0),
            only_if=("label_weight", 0.0, 0.1, 0.3),
        ),
        Choice(
            name="hints",
            help="feature maps matched besides the outputs, at the end of each resolution: where they are active "
            "(Zagoruyko and Komodakis 2017), or their values (Romero et al. 2015; Tung and Mori 2019)",
            choices=("none", "attention", "features"),
        ),
    )
    needs = frozenset({Need.TRAIN})
    after = frozenset({"morphology", "pruning"})
    before = frozenset({"graph", "quantization"})
    requires = frozenset({"morphology", "pruning"})

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.networks import BATCH_NORMS
        from orchestrator_distillation.hints import stages

        normalised = any(isinstance(module, BATCH_NORMS) for module in model.modules())
        labelled = "train" in context.task.labelled and context.task_loss is not None
        changes: dict[str, dict[str, object]] = {
            "epochs": dict(epochs_range(context)),
            "schedule": {"choices": ("one-cycle",)},  # cosine is no better: not worth a dimension of the search
            "optimizer": {"choices": ("sgd", "adamw") if normalised else ("adamw",)},
            "label_weight": {"choices": (0.0, 0.1, 0.3) if labelled else (0.0,)},
        }
        if context.task.classes is None:
            changes["temperature"] = {"choices": (4.0,)}  # without classes there is no softmax
        if not stages(model, context.forward, context.example):
            changes["hints"] = {"choices": ("none",)}
        return narrowed(parameters, **changes)

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        labels = " on the labels alone" if parameters["label_weight"] == LABELS_ONLY else ""
        hints = f" with {parameters['hints']} as hints" if parameters["hints"] != "none" else ""
        return f"{plural(parameters['epochs'], 'epoch')} of recovery{labels}{hints}"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the trained network."""
        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator_distillation.hints import hinted, stages

        label_weight, kind = float(parameters["label_weight"]), str(parameters["hints"])
        if label_weight and (context.task_loss is None or "train" not in context.task.labelled):
            raise MethodError(f"{self.name}: label_weight={label_weight} needs labels, and the train split has none; choose 0.0")
        optimizer: Literal["adamw", "sgd"] = "sgd" if parameters["optimizer"] == "sgd" else "adamw"
        schedule: Literal["one-cycle", "cosine"] = "cosine" if parameters["schedule"] == "cosine" else "one-cycle"
        loss = TeacherLoss.of(context, temperature=float(parameters.get("temperature", 4.0)), label_weight=label_weight)
        pairs: dict[str, str] = {}
        if kind != "none":
            if label_weight == LABELS_ONLY or context.original is None:
                raise MethodError(f"{self.name}: hints need the teacher, which label_weight={LABELS_ONLY} does not use")
            student = stages(model, context.forward, context.example)
            teacher = stages(context.original, context.forward, context.example)
            pairs = {student[places]: teacher[places] for places in student if places in teacher}
            if not pairs:
                raise MethodError(
                    f"{self.name}: this network has no feature map of a resolution that the original has; hints=none"
                )
        with hinted(
            loss,
            student=model,
            teacher=context.original or model,
            pairs=pairs,
            kind=kind,
            weight=HINT_WEIGHTS.get(kind, 0.0),
        ) as total_loss:
            context.train(
                model,
                epochs=float(parameters["epochs"]),
                loss=total_loss if pairs else loss,
                learning_rate=float(parameters["rate"]) * USUAL_RATES[optimizer],
                optimizer=optimizer,
                schedule=schedule,
            )
        return model
