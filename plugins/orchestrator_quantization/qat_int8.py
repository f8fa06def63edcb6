"""Quantization-aware training, followed by static INT8.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Need,
    Parameters,
    ParameterValues,
    Refused,
    Target,
    TorchToOnnxMethod,
    narrowed,
    plural,
)
from orchestrator.plugin.training import EPOCHS, epochs_range
from orchestrator_quantization.base import AFTER, FAMILY
from orchestrator_quantization.int8 import FORM, SCHEME, with_supported_schemes
from orchestrator_quantization.quantizer import QuantizerSettings
from orchestrator_quantization.static_quantization import quantize

if TYPE_CHECKING:
    from torch import nn

LEAST_ZEROS = 0.05
"""Share of zeros above which a weight tensor counts as pruned, and its zeros stay zero."""


class QatInt8(TorchToOnnxMethod):
    """Trains with fake quantization towards the original, exports, and quantizes the file (Jacob et al. 2018)."""

    name = "qat-int8"
    version = 1
    reads = frozenset({"target.profile", "task_loss", "train"})
    family = FAMILY
    summary = "INT8 after training with simulated integers, the original as the teacher (Jacob et al. 2018; Bengio et al. 2013)."
    parameters: ClassVar[Parameters] = (
        SCHEME,
        FORM,
        EPOCHS,
        Choice(name="learning_rate", help="peak of the schedule", choices=(0.0003, 0.0001, 0.001)),
        Choice(name="label_weight", help="share of the task's own loss, the rest is the teacher's", choices=(0.0, 0.3)),
    )
    needs = frozenset({Need.TRAIN, Need.CALIBRATION})
    after = AFTER
    usual = False

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        return with_supported_schemes(self.parameters, target, self.name)

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.networks import PRODUCTS

        quantized = sum(m.weight.numel() for m in model.modules() if isinstance(m, PRODUCTS))
        total = sum(p.numel() for p in model.parameters())
        if not quantized or 2 * quantized < total:
            raise Refused(
                f"{self.name}: convolutions and linear layers hold {quantized} of the {total} parameters; the others would stay "
                f"in float"
            )
        labelled = "train" in context.task.labelled and context.task_loss is not None
        return narrowed(parameters, epochs=epochs_range(context), **({} if labelled else {"label_weight": {"choices": (0.0,)}}))

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"INT8 static after {plural(parameters['epochs'], 'epoch')} of quantization-aware training"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator.plugin.masks import keep_zeros
        from orchestrator_quantization.batch_norm import fold, frozen
        from orchestrator_quantization.fake_quantization import fake_quantizers

        settings = QuantizerSettings.of(parameters, context.target)
        fold(model.eval(), context.forward, context.example)
        pruned = (name for name, p in model.named_parameters() if p.ndim > 1 and float((p == 0).float().mean()) > LEAST_ZEROS)
        keep_zeros(model, pruned)
        # Unsigned weights have a zero point, which symmetric ones approximate to half a step in a range of 255.
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
            return quantize(exported, settings, context, self.name)
        finally:
            exported.unlink(missing_ok=True)
