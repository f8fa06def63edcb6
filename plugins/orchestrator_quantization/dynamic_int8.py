"""Dynamic INT8: weights are integers in the file, ranges of activations are taken at every inference.

Zafrir et al. 2019, "Q8BERT", have it for transformers, beside training with quantization in sight; Dettmers et al. 2022,
"LLM.int8()", describe the outliers of their activations, which is why ranges that were fixed beforehand serve them ill.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    OnnxMethod,
    Parameter,
    ParameterValue,
    Refused,
    Target,
)
from orchestrator_quantization.files import prepared, quantizing, read, tried, weights
from orchestrator_quantization.int8 import saturates, supported

PRODUCTS = ("MatMul", "Gemm", "LSTM", "Attention")
OPERATORS = ["MatMul", "Gemm", "LSTM", "Attention", "Gather", "EmbedLayerNormalization"]
"""What is quantized: matrix products, and embedding tables for their size. Convolutions are not: they become slower."""

LEAST_SHARE = 0.5


class DynamicInt8(OnnxMethod):
    """INT8 matrix products and embedding tables, weights with one scale per channel; convolutions stay in float."""

    name = "dynamic-int8"
    version = 1
    family = "quantization"
    reads = frozenset({"target.profile"})
    summary = "INT8 weights, activations quantized at every inference; for transformers and LSTMs (Zafrir et al. 2019)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="weights", help="integer type of the weights, s8: signed, u8: unsigned", choices=("s8", "u8")),
    )
    after = frozenset({"pruning", "morphology", "distillation", "graph"})

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        supported(target, self.name)
        if target.runtime != "onnxruntime":
            raise Refused(f"{self.name}: its operators run in onnxruntime only, but the target's runtime is {target.runtime}")
        return self.parameters

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        held = weights(read(model, self.name))
        products, whole = sum(held.get(kind, 0) for kind in PRODUCTS), sum(held.values())
        if not products or products < LEAST_SHARE * whole:
            raise Refused(
                f"{self.name}: matrix products hold {products} of the {whole} weights, but dynamic quantization pays only "
                f"where they hold at least half; convolutions would become slower"
            )
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return "INT8 dynamic"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        ready = prepared(model, context, self.name)
        output = context.workspace / f"{self.name}.onnx"
        signed = parameters["weights"] == "s8"
        with quantizing(self.name):
            quantize_dynamic(
                str(ready),
                str(output),
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                reduce_range=signed and saturates(context.target),
                weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            )
        ready.unlink()
        return tried(output, context, self.name)
