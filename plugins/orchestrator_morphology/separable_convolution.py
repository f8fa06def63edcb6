"""Depthwise and pointwise convolutions in the place of dense ones."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    percent,
)

if TYPE_CHECKING:
    from torch import nn


class SeparableConvolution(TorchMethod):
    """Replaces dense k x k convolutions by a depthwise k x k and a pointwise one, those first that lose least by it.

    Each input channel's kernels for all outputs are a matrix (outputs x k k); its best approximation of rank one is one kernel
    and its weight for each output. Only convolutions that get cheaper are replaced.
    """

    name = "separable-convolution"
    version = 1
    family = "morphology"
    reads = frozenset[str]()
    summary = "Replaces dense convolutions by depthwise and pointwise ones (Chollet 2017; initialised as in Guo et al. 2018)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
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
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_morphology.layers import products

        try:
            layers = dense(model, products(model, context))
        except MethodError as error:
            raise Refused(str(error)) from error
        if not layers:
            raise Refused(
                "this network has no dense convolution with a kernel larger than 1 that would get cheaper and can be replaced"
            )
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"{percent(parameters['share'])} of the dense convolutions made depthwise separable"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_morphology.layers import products, put, shapes

        expected, layers = shapes(model, context), dense(model, products(model, context))
        wanted, done = max(1, round(float(parameters["share"]) * len(layers))), 0
        errors = {name: error(model.get_submodule(name)) for name in layers}
        for name in sorted(layers, key=errors.__getitem__):
            if done < wanted:
                done += put(model, name, separated(model.get_submodule(name)), context, expected)
        if not done:
            raise MethodError(f"{self.name}: this network has no dense convolution that can be replaced")
        return model


def dense(model: "nn.Module", names: Iterable[str]) -> list[str]:
    """Of these layers the convolutions that would take fewer multiply-accumulates as depthwise and pointwise ones."""
    from torch import nn

    found = []
    for name in names:
        layer: Any = model.get_submodule(name)
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == 1:
            taps = layer.weight[0, 0].numel()
            if taps > 1 and layer.in_channels * (taps + layer.out_channels) < layer.weight.numel():
                found.append(name)
    return found


def error(layer: Any) -> float:
    """The share of a convolution's squared weights that its separated form loses (0 to 1)."""
    import torch

    values = torch.linalg.svdvals(layer.weight.detach().double().flatten(2).transpose(0, 1))
    return float(1 - values[:, 0].square().sum() / values.square().sum().clamp(min=1e-300))


def separated(layer: Any) -> "nn.Module":
    """A dense convolution's best approximation by a depthwise and a pointwise one."""
    import torch

    from orchestrator_morphology.factors import conv, pointwise, sequence

    channels, outs = layer.in_channels, layer.out_channels
    matrices = layer.weight.detach().double().flatten(2).transpose(0, 1)  # (inputs, outputs, taps)
    left, singular, right = torch.linalg.svd(matrices, full_matrices=False)
    root = singular[:, :1].sqrt()
    depthwise = conv(layer, channels, channels, layer.kernel_size, groups=channels)
    return sequence(layer, [(depthwise, root * right[:, 0]), (pointwise(layer, channels, outs), (left[:, :, 0] * root).T)])
