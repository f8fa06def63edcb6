"""Deeper networks that compute the same (Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer")."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import BuildContext, MethodError, Number, Parameters, ParameterValues, Refused, narrowed, plural
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 4
"""Largest number of inserted layers in the search."""

RELU = ("Relu", "Hardtanh")
NON_NEGATIVE = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "View", "UnsafeView", "Reshape", "Mean", "Squeeze", "Unsqueeze")
"""Autograd nodes of functions that keep non-negative values non-negative: poolings, means and changes of shape."""


class Net2Deeper(MorphologyMethod):
    """Inserts convolutions and linear layers initialised as the identity, each with a ReLU (Chen et al. 2016).

    They are inserted where the input is never negative: behind a ReLU, with poolings, flattening and dropout in between; there
    an identity with a ReLU changes nothing, which is checked. The network costs more; the cheapest places come first.
    """

    name = "net2deeper"
    version = 2
    reads = frozenset[str]()
    summary = "Inserts layers that begin as the identity (Chen et al. 2016, Net2Net)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="layers",
            help="number of inserted layers",
            low=1,
            high=MOST,
            step=1,
            default=1,
            integer=True,
            bounds=(1, 1000),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        places = _places(model, context)
        if not places:
            raise Refused("no convolution or linear layer of this network reads the output of a ReLU")
        return narrowed(parameters, layers={"high": min(MOST, len(places))})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"{plural(parameters['layers'], 'layer')} inserted"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from torch import nn

        from orchestrator.plugin.networks import run, same
        from orchestrator_morphology.layers import replace_layer, shapes

        layers, inserted = int(parameters["layers"]), 0
        before, expected = run(model, context.forward, context.example), shapes(model, context)
        for name in _places(model, context):
            layer = model.get_submodule(name)
            if inserted < layers:
                deeper = nn.Sequential(identity(layer), nn.ReLU(), layer)
                inserted += replace_layer(model, name, deeper, context, expected)
        if inserted < layers:
            raise MethodError(f"{self.name}: this network takes {inserted} inserted layers, but got layers={layers}")
        if not same(before, run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the outputs of the deeper network differ from those of the original")
        return model


def identity(reader: Any) -> "nn.Module":
    """Return a layer initialised as the identity on a layer's input; its kernel is 3 wide where the reader's is wider than 1."""
    import torch
    from torch import nn

    weight = reader.weight
    layer: Any
    if isinstance(reader, nn.Linear):
        layer = nn.Linear(reader.in_features, reader.in_features)
        eye = torch.eye(reader.in_features)
    else:
        kernel = tuple(3 if k > 1 else 1 for k in reader.kernel_size)
        cls: Any = next(c for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(reader, c))
        layer = cls(reader.in_channels, reader.in_channels, kernel, padding=tuple(k // 2 for k in kernel))
        eye = nn.init.dirac_(torch.empty(layer.weight.shape))
    layer.weight = nn.Parameter(eye.to(weight), requires_grad=weight.requires_grad)
    layer.bias = nn.Parameter(torch.zeros(len(eye)).to(weight), requires_grad=weight.requires_grad)
    inserted: nn.Module = layer
    return inserted


def _places(model: "nn.Module", context: BuildContext) -> list[str]:
    """Return the layers whose input is never negative, those first in front of which a layer costs least."""
    from orchestrator.plugin.channel_groups import differentiable
    from orchestrator.plugin.networks import layer_calls
    from orchestrator_morphology.layers import replaceable_layers

    replaceable = replaceable_layers(model, context)
    with differentiable(model):
        calls = layer_calls(model, context.forward, context.example, replaceable, gradients=True)
    costs = {c.name: _cost(model.get_submodule(c.name), c.input) for c in calls if _is_behind_relu(c.input)}
    return sorted(costs, key=costs.__getitem__)


def _cost(layer: Any, value: "Tensor") -> int:
    """Return the multiply-accumulates of an identity in front of a layer, for one example."""
    from torch import nn

    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    taps = 1 if isinstance(layer, nn.Linear) else math.prod(3 if k > 1 else 1 for k in layer.kernel_size)
    return int(value[0].numel() * width * taps)


def _is_behind_relu(value: "Tensor") -> bool:
    """Return True if the autograd graph leads from a tensor to a ReLU through non-negative functions."""
    node: Any = value.grad_fn
    while node is not None and not node.name().startswith(RELU):
        if not node.name().startswith(NON_NEGATIVE):
            return False
        node = node.next_functions[0][0]
    return node is not None
