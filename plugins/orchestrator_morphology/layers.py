"""Layers that can be replaced by other ones, and the trial that shows it. Loads torch: imported lazily."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from orchestrator.plugin.networks import replace, run
from orchestrator_morphology.dataflow import Call, is_product, private_layers, recorded

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext


def shapes(model: nn.Module, context: "BuildContext") -> list[torch.Size]:
    """The shapes of a network's outputs for the task's example."""
    return [t.shape for t in run(model, context.forward, context.example)]


def products(model: nn.Module, context: "BuildContext") -> dict[str, Call]:
    """The convolutions and linear layers that another module can stand for, with their call, in the order of the network.

    Each was tried: inside a sequence of its own the network still runs. (It does not where a `forward` reads `layer.weight`.)

    Raises:
        MethodError: the network cannot be recorded.
    """
    calls = private_layers(model, recorded(model, context))
    twin, expected = copy.deepcopy(model), shapes(model, context)
    found = {name: call for name, call in calls.items() if is_product(model.get_submodule(name))}
    return {n: call for n, call in found.items() if put(twin, n, nn.Sequential(twin.get_submodule(n)), context, expected)}


def put(model: nn.Module, name: str, new: nn.Module, context: "BuildContext", expected: Sequence[torch.Size]) -> bool:
    """Replace a layer in place; the old one comes back where the network does not run or answers in another shape.

    Returns:
        Whether the new one is in place.
    """
    old = model.get_submodule(name)
    replace(model, name, new)
    parent = model.get_submodule(name.rpartition(".")[0])
    fused = getattr(parent, "activation_relu_or_gelu", 0)
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = 0  # its fused kernel would read the weights of the layer that is gone
    try:
        fits = shapes(model, context) == list(expected)
    except Exception:  # the user's own forward reads an attribute of the layer: that is the answer
        fits = False
    if fits:
        _unnest(model, parent)
        return True
    replace(model, name, old)
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = fused
    return False


def _unnest(model: nn.Module, layer: nn.Module) -> None:
    """Nested tensors are for the fused kernel only."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(inner is layer for inner in module.layers):
            module.use_nested_tensor = False
