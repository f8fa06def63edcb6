"""Half precision: weights and activations in 16 bits.

Micikevicius et al. 2018, "Mixed Precision Training", tell which operators need float32 beside it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.plugin import BuildContext, OnnxMethod, Parameter, ParameterValue, Refused, Target
from orchestrator_quantization.files import opened, quantizing, tried


class Float16(OnnxMethod):
    """float16 inside, float32 at the network's inputs and outputs."""

    name = "float16"
    version = 1
    family = "quantization"
    reads = frozenset[str]()
    summary = "Weights and activations in float16, inputs and outputs in float32 (Micikevicius et al. 2018)."
    after = frozenset({"pruning", "morphology", "distillation", "graph"})

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        if "float16" not in target.support.formats:
            raise Refused(f"{self.name}: the profile {target.profile.name} lists no float16 for {target.runtime}")
        return self.parameters

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        if not opened(model, context, self.name).weights():
            raise Refused(f"{self.name}: the network holds no float32 weights")
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return "weights and activations in float16"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        import onnx

        from orchestrator_quantization.graph import Graph

        graph = opened(model, context, self.name)
        output = context.workspace / f"{self.name}.onnx"
        with quantizing(self.name):
            paths = list(sys.path)
            from onnxruntime.transformers.float16 import convert_float_to_float16

            sys.path[:] = paths  # the package puts its own folder there
            converted = Graph(convert_float_to_float16(graph.model, keep_io_types=True))
            converted.sort()  # the casts of the inputs stand last
            onnx.save(converted.model, str(output))
        return tried(output, context, self.name)
