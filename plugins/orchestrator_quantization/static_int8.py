"""Static INT8 with activation ranges from calibration data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from pathlib import Path
from typing import Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Need,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    Target,
    narrowed,
    plural,
)
from orchestrator_quantization.base import QuantizationMethod
from orchestrator_quantization.int8 import FORM, SCHEME, with_supported_schemes
from orchestrator_quantization.model_files import load_graph, load_model, weight_elements
from orchestrator_quantization.quantizer import WEIGHTED, QuantizerSettings
from orchestrator_quantization.static_quantization import quantize

MOST_FLOAT_LAYERS = 4
"""Largest number of layers that the search leaves in float, and never more than half of them."""


class StaticInt8(QuantizationMethod):
    """INT8 activations and weights (Jacob et al. 2018).

    The most sensitive layers can stay in float, and channels can be equalised and biases corrected first (Nagel et al. 2019).
    """

    name = "static-int8"
    version = 2
    reads = frozenset({"target.profile"})
    summary = "INT8 activations and weights with ranges from calibration data (Jacob et al. 2018; Nagel et al. 2019)."
    parameters: ClassVar[Parameters] = (
        SCHEME,
        FORM,
        Choice(
            name="calibration",
            help="range of an activation: minmax, all but the outermost 0.001 % of values (percentile), "
            "or least loss of information (entropy)",
            choices=("minmax", "percentile", "entropy"),
        ),
        Choice(name="examples", help="calibration examples", choices=(128, 512)),
        Choice(
            name="granularity",
            help="one weight scale for each output channel, or one for the tensor",
            choices=("channel", "tensor"),
        ),
        Choice(
            name="symmetry",
            help="zero point of signed activations: symmetric is 0, asymmetric is free; unsigned ones are always asymmetric",
            only_if=("scheme", "s8s8"),
            choices=("symmetric", "asymmetric"),
        ),
        Number(
            name="float_layers",
            cheaper="low",
            help="number of layers in float: those whose quantization alone changes the outputs most, as measured",
            low=0,
            high=MOST_FLOAT_LAYERS,
            step=1,
            default=0,
            integer=True,
            bounds=(0, 1000),
        ),
        Choice(
            name="first_layer",
            help="convolutions that read the network's input: few channels make them slow in integers",
            choices=("int8", "float32"),
        ),
        Choice(
            name="equalisation",
            help="equalise the ranges of channels between convolutions first; the float network computes the same",
            choices=(False, True),
        ),
        Choice(
            name="bias_correction",
            help="correct biases by the mean error that rounded weights cause on calibration data",
            choices=(False, True),
        ),
    )
    needs = frozenset({Need.CALIBRATION})

    def legal(self, target: Target) -> Parameters:
        """Return the search ranges that the target supports."""
        parameters = with_supported_schemes(self.parameters, target, self.name)
        signed = any(scheme.startswith("s8") for scheme in target.support.int8_schemes)
        return parameters if signed else narrowed(parameters, symmetry={"choices": ("symmetric",)})

    def offer(self, model: Path, parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        elements = weight_elements(load_model(model, self.name))
        quantized, total = sum(elements.get(kind, 0) for kind in WEIGHTED), sum(elements.values())
        if not quantized or 2 * quantized < total:
            raise Refused(
                f"{self.name}: convolutions and matrix products hold {quantized} of the {total} weights; the others "
                f"would stay in float"
            )
        return narrowed(parameters, **self._inapplicable(model, context))

    def _inapplicable(self, model: Path, context: BuildContext) -> dict[str, Any]:
        """Return the changes of search ranges that exclude what does not apply to this network."""
        from orchestrator_quantization.bias import correctable
        from orchestrator_quantization.equalisation import scalable_pairs
        from orchestrator_quantization.layers import first_convolutions, weighted_layers

        graph = load_graph(model, context, self.name)
        layers, first = weighted_layers(graph), first_convolutions(graph)
        changes: dict[str, Any] = {"float_layers": {"high": min(MOST_FLOAT_LAYERS, len(layers) // 2)}}
        if not 0 < len(first) < len(layers):
            changes["first_layer"] = {"choices": ("int8",)}
        if not scalable_pairs(graph):
            changes["equalisation"] = {"choices": (False,)}
        if not correctable(graph):
            changes["bias_correction"] = {"choices": (False,)}
        return changes

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        parts = ["INT8 static"]
        if parameters["float_layers"] != 0:
            parts.append(f"{plural(parameters['float_layers'], 'layer')} left in float")
        if parameters["first_layer"] == "float32":
            parts.append("the first layer left in float")
        if parameters["granularity"] == "tensor":
            parts.append("one scale a tensor")
        if parameters["equalisation"]:
            parts.append("channels equalised")
        if parameters["bias_correction"]:
            parts.append("biases corrected")
        return ", ".join(parts)

    def transform(self, model: Path, parameters: ParameterValues, context: BuildContext) -> Path:
        """Return the path of the changed file."""
        return quantize(model, QuantizerSettings.of(parameters, context.target), context, self.name)
