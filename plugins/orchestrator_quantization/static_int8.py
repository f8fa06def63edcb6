"""Static INT8: ranges of activations are fixed beforehand on calibration data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Need,
    Number,
    OnnxMethod,
    Parameter,
    ParameterValue,
    Refused,
    Target,
    narrowed,
    plural,
)
from orchestrator_quantization.files import opened, read, weights
from orchestrator_quantization.int8 import FORM, SCHEME, runnable
from orchestrator_quantization.static import PRODUCTS, QuantizerSettings, quantized

MOST_FLOAT_LAYERS = 4
"""The search leaves at most so many layers in float, and never more than a half."""


class StaticInt8(OnnxMethod):
    """INT8 activations and weights.

    Layers that lose most by it can stay in float, channels can be equalised and biases corrected first.
    """

    name = "static-int8"
    version = 2
    family = "quantization"
    reads = frozenset({"target.profile"})
    summary = "INT8 activations and weights with ranges from calibration data (Jacob et al. 2018; Nagel et al. 2019)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
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
            help="weights have one scale for each output channel, or one for the whole tensor",
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
            help="how many layers stay in float: those that move the outputs most when they alone are INT8, as measured",
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
            help="let biases make up for the mean error that rounded weights cause on calibration data",
            choices=(False, True),
        ),
    )
    needs = frozenset({Need.CALIBRATION})
    after = frozenset({"pruning", "morphology", "distillation", "graph"})

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        parameters = runnable(self.parameters, target, self.name)
        signed = any(scheme.startswith("s8") for scheme in target.support.int8_schemes)
        return parameters if signed else narrowed(parameters, symmetry={"choices": ("symmetric",)})

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        held = weights(read(model, self.name))
        quantized_weights, whole = sum(held.get(kind, 0) for kind in PRODUCTS), sum(held.values())
        if not quantized_weights or 2 * quantized_weights < whole:
            raise Refused(
                f"{self.name}: convolutions and matrix products hold {quantized_weights} of the {whole} weights; the others "
                f"would stay in float"
            )
        return narrowed(parameters, **self._useless(model, context))

    def _useless(self, model: Path, context: BuildContext) -> dict[str, Any]:
        """What this network has nothing for, out of the search ranges."""
        from orchestrator_quantization.bias import correctable
        from orchestrator_quantization.equalisation import pairs

        graph = opened(model, context, self.name)
        layers, first = graph.layers(), graph.first_convolutions()
        changes: dict[str, Any] = {"float_layers": {"high": min(MOST_FLOAT_LAYERS, len(layers) // 2)}}
        if not 0 < len(first) < len(layers):
            changes["first_layer"] = {"choices": ("int8",)}
        if not pairs(graph):
            changes["equalisation"] = {"choices": (False,)}
        if not correctable(graph):
            changes["bias_correction"] = {"choices": (False,)}
        return changes

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
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

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        return quantized(model, QuantizerSettings.of(parameters, context.target), context, self.name)
