"""Replacement of layers, each tried on the network. Imports torch; imported on use."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from orchestrator.errors import one_line
from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import PRODUCTS, LayerCall, layer_calls, replace, run, shared_parameters

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

_FORWARDS = frozenset(layer.forward for layer in PRODUCTS)


def shapes(model: nn.Module, context: "BuildContext") -> list[torch.Size]:
    """Return the shapes of a network's outputs for the task's example."""
    return [t.shape for t in run(model, context.forward, context.example)]


def plain_layers(model: nn.Module) -> list[str]:
    """Return the convolutions and linear layers that compute as torch's own and share their parameters with no other layer."""
    shared = shared_parameters(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, PRODUCTS)
        and type(module).forward in _FORWARDS
        and not parametrize.is_parametrized(module)
        and not any(id(p) in shared for p in module.parameters(recurse=False))
    ]


def replaceable_layers(model: nn.Module, context: "BuildContext") -> dict[str, LayerCall]:
    """Return the layers that another module can replace, with their call, in the order of the calls.

    Each was tried: inside an nn.Sequential of its own the network still runs. (It does not if a `forward` reads `layer.weight`.)

    Raises:
        MethodError: The network does not run.
    """
    try:
        calls = layer_calls(model, context.forward, context.example, filter(None, plain_layers(model)))
    except Exception as error:  # anything that a user's network raises
        raise MethodError(f"this network does not run: {one_line(error)}") from error
    counts = Counter(call.name for call in calls)
    trial, expected = copy.deepcopy(model), shapes(model, context)
    return {
        call.name: call
        for call in calls
        if counts[call.name] == 1
        and replace_layer(trial, call.name, nn.Sequential(trial.get_submodule(call.name)), context, expected)
    }


def replace_layer(model: nn.Module, name: str, new: nn.Module, context: "BuildContext", expected: Sequence[torch.Size]) -> bool:
    """Replace a layer in place, or restore it if the network then fails or its outputs have other shapes.

    Returns:
        True if the layer is replaced.
    """
    old = model.get_submodule(name)
    replace(model, name, new)
    parent = model.get_submodule(name.rpartition(".")[0])
    fused = getattr(parent, "activation_relu_or_gelu", 0)
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = 0  # its fused kernel would read the weights of the old layer
    try:
        fits = shapes(model, context) == list(expected)
    except Exception:  # the user's own forward reads an attribute of the layer
        fits = False
    if not fits:
        replace(model, name, old)
        if isinstance(parent, nn.TransformerEncoderLayer):
            parent.activation_relu_or_gelu = fused
        return False
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(layer is parent for layer in module.layers):
            module.use_nested_tensor = False  # only the fused kernel takes nested tensors
    return True
