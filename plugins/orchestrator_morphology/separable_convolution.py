"""Depthwise separable convolutions in the place of dense ones."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import BuildContext, MethodError, Number, Parameters, ParameterValues, Refused, percent
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn


class SeparableConvolution(MorphologyMethod):
    """Replaces dense k x k convolutions by a depthwise k x k and a pointwise one (Chollet 2017).

    Those of least approximation error are replaced first. The kernels of an input channel for all outputs are a matrix
    (outputs x k k); its best rank-one approximation is one kernel and its weight for each output (Guo et al. 2018). Only
    convolutions that get cheaper are replaced.
    """

    name = "separable-convolution"
    version = 1
    reads = frozenset[str]()
    summary = "Replaces dense convolutions by depthwise and pointwise ones (Chollet 2017; initialised as in Guo et al. 2018)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="share",
            cheaper="high",
            help="share of the dense convolutions that is replaced, those of least approximation error first",
            low=0.25,
            high=1.0,
            step=0.25,
            default=0.5,
            bounds=(0.01, 1.0),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.layers import replaceable_layers

        if not separable(model, replaceable_layers(model, context)):
            raise Refused(
                "this network has no dense convolution with a kernel larger than 1 that gets cheaper and is replaceable"
            )
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"{percent(parameters['share'])} of the dense convolutions made depthwise separable"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator_morphology.layers import replace_layer, replaceable_layers, shapes

        expected, layers = shapes(model, context), separable(model, replaceable_layers(model, context))
        count, replaced = max(1, round(float(parameters["share"]) * len(layers))), 0
        errors = {name: approximation_error(model.get_submodule(name)) for name in layers}
        for name in sorted(layers, key=errors.__getitem__):
            if replaced < count:
                replaced += replace_layer(model, name, separated(model.get_submodule(name)), context, expected)
        if not replaced:
            raise MethodError(f"{self.name}: this network has no dense convolution that can be replaced")
        return model


def separable(model: "nn.Module", names: Iterable[str]) -> list[str]:
    """Return the convolutions among these layers that take fewer multiply-accumulates as depthwise and pointwise ones."""
    from orchestrator.plugin.networks import CONVOLUTION

    dense = []
    for name in names:
        layer: Any = model.get_submodule(name)
        if isinstance(layer, CONVOLUTION) and layer.groups == 1:
            taps = layer.weight[0, 0].numel()
            if taps > 1 and layer.in_channels * (taps + layer.out_channels) < layer.weight.numel():
                dense.append(name)
    return dense


def approximation_error(layer: Any) -> float:
    """Return the share of a convolution's squared weights that its separated form loses (0 to 1)."""
    import torch

    values = torch.linalg.svdvals(layer.weight.detach().double().flatten(2).transpose(0, 1))
    return float(1 - values[:, 0].square().sum() / values.square().sum().clamp(min=1e-300))


def separated(layer: Any) -> "nn.Module":
    """Return the best approximation of a dense convolution by a depthwise and a pointwise one."""
    import torch

    from orchestrator_morphology.factors import conv, pointwise, sequence

    channels, outs = layer.in_channels, layer.out_channels
    matrices = layer.weight.detach().double().flatten(2).transpose(0, 1)  # (inputs, outputs, taps)
    left, singular, right = torch.linalg.svd(matrices, full_matrices=False)
    root = singular[:, :1].sqrt()
    depthwise = conv(layer, channels, channels, layer.kernel_size, groups=channels)
    return sequence(layer, [(depthwise, root * right[:, 0]), (pointwise(layer, channels, outs), (left[:, :, 0] * root).T)])
