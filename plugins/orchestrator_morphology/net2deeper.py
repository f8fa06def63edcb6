"""More layers that compute the same: Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import (
    BuildContext,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    plural,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_morphology.dataflow import Call, Dataflow

MOST = 4
"""The search inserts at most this many layers."""

KEPT_BY = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool2d", "adaptive_avg_pool2d", "flatten", "mean", "dropout"})


class Net2Deeper(TorchMethod):
    """Inserts convolutions and linear layers that begin as the identity, each with a ReLU, in front of present layers.

    Such a layer changes nothing where what it is given is never negative: behind a ReLU (poolings, flattening and dropout may
    stand between). Only there are layers inserted; behind other activations the identity holds only without an activation, and
    a linear layer in front of a linear layer adds cost and no capacity. That the outputs stay is checked. The network costs
    more: for accuracy where there is room. The places that cost least come first.
    """

    name = "net2deeper"
    version = 1
    family = "morphology"
    reads = frozenset[str]()
    summary = "Inserts layers that begin as the identity (Chen et al. 2016, Net2Net)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="layers",
            help="how many layers are inserted",
            low=1,
            high=MOST,
            step=1,
            default=1,
            integer=True,
            bounds=(1, 1000),
        ),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        try:
            places = _places(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        if not places:
            raise Refused("no convolution or linear layer of this network reads what a ReLU gave")
        return narrowed(parameters, layers={"high": min(MOST, len(places))})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"{plural(parameters['layers'], 'layer')} inserted"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from torch import nn

        from orchestrator.plugin.networks import run, same
        from orchestrator_morphology.layers import put, shapes

        wanted, done = int(parameters["layers"]), 0
        before, expected = run(model, context.forward, context.example), shapes(model, context)
        for name in _places(model, context):
            layer = model.get_submodule(name)
            if done < wanted:
                done += put(model, name, nn.Sequential(identity(layer), nn.ReLU(), layer), context, expected)
        if done < wanted:
            raise MethodError(f"{self.name}: this network takes {done} inserted layers, but got layers={wanted}")
        if not same(before, run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the deeper network does not compute what it did")
        return model


def identity(reader: Any) -> "nn.Module":
    """A layer in front of a convolution or linear layer, that hands on what it is given: 3 wide where the reader is wider."""
    import torch
    from torch import nn

    weight = reader.weight
    made: Any
    if isinstance(reader, nn.Linear):
        made = nn.Linear(reader.in_features, reader.in_features)
        eye = torch.eye(reader.in_features)
    else:
        kernel = tuple(3 if k > 1 else 1 for k in reader.kernel_size)
        cls: Any = next(c for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(reader, c))
        made = cls(reader.in_channels, reader.in_channels, kernel, padding=tuple(k // 2 for k in kernel))
        eye = nn.init.dirac_(torch.empty(made.weight.shape))
    made.weight = nn.Parameter(eye.to(weight), requires_grad=weight.requires_grad)
    made.bias = nn.Parameter(torch.zeros(len(eye)).to(weight), requires_grad=weight.requires_grad)
    layer: nn.Module = made
    return layer


def _places(model: "nn.Module", context: BuildContext) -> list[str]:
    """The layers that read what is never negative, those first in front of which a layer costs least."""
    from orchestrator_morphology.dataflow import private_layers, recorded
    from orchestrator_morphology.layers import products

    flow = recorded(model, context)
    costs: dict[str, int] = {}
    replaceable = products(model, context)
    for name, call in private_layers(model, flow).items():
        layer = model.get_submodule(name)
        if name in replaceable and len(call.inputs) == 1 and call.given is not None and _after_relu(model, flow, call):
            costs[name] = _cost(layer, call.given)
    return sorted(costs, key=costs.__getitem__)


def _cost(layer: Any, given: "Tensor") -> int:
    """Multiply-accumulates of an identity in front of a layer, for one example."""
    import math

    from torch import nn

    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    taps = 1 if isinstance(layer, nn.Linear) else math.prod(3 if k > 1 else 1 for k in layer.kernel_size)
    return int(given[0].numel() * width * taps)


def _after_relu(model: "nn.Module", flow: "Dataflow", call: "Call") -> bool:
    from torch import nn

    maker = flow.maker(call.inputs[0])
    while maker is not None and maker.inputs:
        layer = model.get_submodule(maker.layer) if maker.layer is not None else None
        if isinstance(layer, nn.ReLU | nn.ReLU6) or maker.function in ("relu", "relu_", "relu6"):
            return True
        passes = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout)
        if not (isinstance(layer, passes) or maker.function in KEPT_BY):
            return False
        maker = flow.maker(maker.inputs[0])
    return False
