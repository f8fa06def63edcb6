"""Weight sharing: every tensor has a few values, and each weight tells by 8 or 4 bits which of them it is.

Han et al. 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding",
section 3, without its training of the shared values.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from orchestrator.plugin import BuildContext, Choice, OnnxMethod, Parameter, ParameterValue, Refused, Target
from orchestrator_quantization.files import opened, quantizing, tried


class WeightSharing(OnnxMethod):
    """Smaller files of the same speed: the runtime spells the weights out when it loads the file, and computes in float."""

    name = "weight-sharing"
    version = 1
    family = "quantization"
    reads = frozenset[str]()
    summary = "Each tensor's weights clustered to a few shared values, for the size of the file (Han et al. 2016)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(
            name="clusters",
            cheaper="low",
            help="values that a tensor's weights share: 256 take 8 bits a weight, 16 take 4",
            choices=(256, 16),
        ),
    )
    after = frozenset({"pruning", "morphology", "distillation", "graph"})
    usual = False

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        if target.runtime != "onnxruntime":
            raise Refused(
                f"{self.name}: only onnxruntime is known to spell shared weights out once, at loading, but the target's runtime "
                f"is {target.runtime}"
            )
        return self.parameters

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_quantization.codebook import sharable

        graph = opened(model, context, self.name)
        held, whole = sum(graph.array(name).size for name in sharable(graph, 256)), graph.weights()
        if not held or 2 * held < whole:
            raise Refused(
                f"{self.name}: tensors that are large enough for a codebook hold {held} of the {whole} weights; the file would "
                f"hardly shrink"
            )
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"weights clustered to {parameters['clusters']} shared values a tensor"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        import onnx

        from orchestrator_quantization.codebook import share

        graph = opened(model, context, self.name)
        output = context.workspace / f"{self.name}.onnx"
        with quantizing(self.name):
            share(graph, int(parameters["clusters"]))
            onnx.save(graph.model, str(output))
        return tried(output, context, self.name)
