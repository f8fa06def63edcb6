"""Weight sharing: each tensor has a codebook of few values, and 8 or 4 bits for each weight.

Han et al. 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding",
section 3, without its training of the shared values.
"""

from pathlib import Path
from typing import ClassVar

from orchestrator.plugin import BuildContext, Choice, Parameters, ParameterValues, Refused, Target
from orchestrator_quantization.base import QuantizationMethod, require_onnxruntime
from orchestrator_quantization.model_files import load_graph, quantizer_errors, save


class WeightSharing(QuantizationMethod):
    """Smaller files of equal speed (Han et al. 2016): the runtime decodes the weights at loading and computes in float."""

    name = "weight-sharing"
    version = 1
    reads = frozenset[str]()
    summary = "Each tensor's weights clustered to a few shared values, for the size of the file (Han et al. 2016)."
    parameters: ClassVar[Parameters] = (
        Choice(
            name="clusters",
            cheaper="low",
            help="shared values of a tensor: 256 take 8 bits a weight, 16 take 4",
            choices=(256, 16),
        ),
    )
    usual = False

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        require_onnxruntime(target, self.name)  # the only one known to decode shared weights once, at loading
        return self.parameters

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_quantization.codebook import sharable

        graph = load_graph(model, context, self.name)
        shared, total = sum(graph.array(name).size for name in sharable(graph, 256)), graph.float_elements()
        if not shared or 2 * shared < total:
            raise Refused(
                f"{self.name}: tensors that are large enough for a codebook hold {shared} of the {total} weights; the file would "
                f"hardly shrink"
            )
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"weights clustered to {parameters['clusters']} shared values a tensor"

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        from orchestrator_quantization.codebook import share

        graph = load_graph(model, context, self.name)
        with quantizer_errors(self.name):
            share(graph, int(parameters["clusters"]))
        return save(graph.model, context, self.name)
