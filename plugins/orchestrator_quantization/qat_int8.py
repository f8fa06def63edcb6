"""Quantization-aware training: the network learns with rounded weights and activations, then becomes static INT8.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Need,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    Target,
    TorchToOnnxMethod,
    narrowed,
    plural,
)
from orchestrator_quantization.int8 import FORM, SCHEME, runnable
from orchestrator_quantization.static import QuantizerSettings, quantized

if TYPE_CHECKING:
    from torch import nn

LEAST_EPOCHS = 0.001
STEPS = 2
"""The search tries the least, the middle and the most epochs that the budget pays for."""

LEAST_ZEROS = 0.05
"""A weight tensor with a larger share of zeros was pruned: they stay zero."""


class QatInt8(TorchToOnnxMethod):
    """Trains with simulated integers and the original as the teacher, exports, and quantizes the file."""

    name = "qat-int8"
    version = 1
    family = "quantization"
    reads = frozenset({"target.profile", "task_loss", "train"})
    summary = "INT8 after training with simulated integers, the original as the teacher (Jacob et al. 2018; Bengio et al. 2013)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        SCHEME,
        FORM,
        Number(
            name="epochs",
            help="passes over the train split; fractions are served",
            low=1,
            high=10,
            step=4.5,
            default=1,
            bounds=(LEAST_EPOCHS, 1000),
        ),
        Choice(name="learning_rate", help="peak of the schedule", choices=(0.0003, 0.0001, 0.001)),
        Choice(name="label_weight", help="share of the task's own loss, the rest is the teacher's", choices=(0.0, 0.3)),
    )
    needs = frozenset({Need.TRAIN, Need.CALIBRATION})
    after = frozenset({"pruning", "morphology", "distillation", "graph"})
    usual = False

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        return runnable(self.parameters, target, self.name)

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator.plugin.networks import PRODUCTS

        held = sum(m.weight.numel() for m in model.modules() if isinstance(m, PRODUCTS))
        whole = sum(p.numel() for p in model.parameters())
        if not held or 2 * held < whole:
            raise Refused(
                f"{self.name}: convolutions and linear layers hold {held} of the {whole} parameters; the others would stay in "
                f"float"
            )
        least, most = context.epochs
        if most < LEAST_EPOCHS:
            raise Refused(f"{self.name}: the budget pays for no training; give the search more time")
        least = max(least, LEAST_EPOCHS)
        changes: dict[str, dict[str, object]] = {
            "epochs": {"low": least, "high": most, "step": max((most - least) / STEPS, 1e-3), "default": most}
        }
        if "train" not in context.task.labelled or context.task_loss is None:
            changes["label_weight"] = {"choices": (0.0,)}
        return narrowed(parameters, **changes)

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"INT8 static after {plural(parameters['epochs'], 'epoch')} of quantization-aware training"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator.plugin.masks import keep_zeros
        from orchestrator_quantization.batch_norm import fold, frozen
        from orchestrator_quantization.fake_quantization import fake_quantizers

        settings = QuantizerSettings.of(parameters, context.target)
        fold(model.eval(), context.forward, context.example)
        pruned = (name for name, p in model.named_parameters() if p.ndim > 1 and float((p == 0).float().mean()) > LEAST_ZEROS)
        keep_zeros(model, pruned)
        # Unsigned weights have a zero point, which symmetric ones come close to: half a step in a range of 255.
        largest = 64 if settings.seven_bits else 127
        with frozen(model), fake_quantizers(model, largest=largest, symmetric=settings.scheme.startswith("s8")):
            context.train(
                model,
                epochs=float(parameters["epochs"]),
                loss=TeacherLoss.of(context, label_weight=float(parameters["label_weight"])),
                learning_rate=float(parameters["learning_rate"]),
            )
        context.workspace.mkdir(parents=True, exist_ok=True)
        exported = context.export(model)
        try:
            return quantized(exported, settings, context, self.name)
        finally:
            exported.unlink(missing_ok=True)
