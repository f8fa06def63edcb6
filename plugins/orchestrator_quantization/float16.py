"""Half precision (Micikevicius et al. 2018, "Mixed Precision Training")."""

import sys
from pathlib import Path

from orchestrator.plugin import BuildContext, Parameters, ParameterValues, Refused, Target
from orchestrator_quantization.base import QuantizationMethod
from orchestrator_quantization.model_files import load_graph, quantizer_errors, save


class Float16(QuantizationMethod):
    """Weights and activations in float16, the network's inputs and outputs in float32 (Micikevicius et al. 2018)."""

    name = "float16"
    version = 1
    reads = frozenset[str]()
    summary = "Weights and activations in float16, inputs and outputs in float32 (Micikevicius et al. 2018)."

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        if "float16" not in target.support.formats:
            raise Refused(f"{self.name}: the profile {target.profile.name} lists no float16 for {target.runtime}")
        return self.parameters

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        if not load_graph(model, context, self.name).float_elements():
            raise Refused(f"{self.name}: the network has no float32 weights")
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return "weights and activations in float16"

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        graph = load_graph(model, context, self.name)
        with quantizer_errors(self.name):
            paths = list(sys.path)
            from onnxruntime.quantization.onnx_model import ONNXModel
            from onnxruntime.transformers.float16 import convert_float_to_float16

            sys.path[:] = paths  # the package adds its own folder
            converted = ONNXModel(convert_float_to_float16(graph.model, keep_io_types=True))
            converted.topological_sort()  # the casts of the inputs are appended last
        return save(converted.model, context, self.name)
