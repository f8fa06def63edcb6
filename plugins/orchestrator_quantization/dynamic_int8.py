"""Dynamic INT8: integer weights in the file, ranges of activations computed at every inference.

Zafrir et al. 2019, "Q8BERT", use it for transformers, beside quantization-aware training; Dettmers et al. 2022, "LLM.int8()",
describe the outliers of transformers' activations, which calibrated ranges represent badly.
"""

from pathlib import Path
from typing import ClassVar

from orchestrator.plugin import BuildContext, Choice, Parameters, ParameterValues, Refused, Target
from orchestrator_quantization.base import QuantizationMethod, require_onnxruntime
from orchestrator_quantization.int8 import require_int8, saturates
from orchestrator_quantization.model_files import load_model, prepare, quantizer_errors, validate, weight_elements

PRODUCTS = ("MatMul", "Gemm", "LSTM", "Attention")
OPERATORS = [*PRODUCTS, "Gather", "EmbedLayerNormalization"]
"""Quantized operators: matrix products, and embedding tables for their size. Convolutions would become slower."""

LEAST_SHARE = 0.5


class DynamicInt8(QuantizationMethod):
    """INT8 matrix products and embedding tables with one weight scale per channel (Zafrir et al. 2019); convolutions in float."""

    name = "dynamic-int8"
    version = 1
    reads = frozenset({"target.profile"})
    summary = "INT8 weights, activations quantized at every inference; for transformers and LSTMs (Zafrir et al. 2019)."
    parameters: ClassVar[Parameters] = (
        Choice(name="weights", help="integer type of the weights, s8: signed, u8: unsigned", choices=("s8", "u8")),
    )

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        require_int8(target, self.name)
        require_onnxruntime(target, self.name)
        return self.parameters

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        elements = weight_elements(load_model(model, self.name))
        products, total = sum(elements.get(kind, 0) for kind in PRODUCTS), sum(elements.values())
        if not products or products < LEAST_SHARE * total:
            raise Refused(
                f"{self.name}: matrix products hold {products} of the {total} weights, but dynamic quantization pays only "
                f"where they hold at least half; convolutions would become slower"
            )
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return "INT8 dynamic"

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        ready = prepare(model, context, self.name)
        output = context.workspace / f"{self.name}.onnx"
        signed = parameters["weights"] == "s8"
        with quantizer_errors(self.name):
            quantize_dynamic(
                str(ready),
                str(output),
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                reduce_range=signed and saturates(context.target),
                weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            )
        ready.unlink()
        return validate(output, context, self.name)
