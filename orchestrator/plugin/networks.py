"""Helpers for methods on torch networks. Loads torch: plugins import it where they use it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Forward = Callable[[nn.Module, Inputs], Any]
PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that multiply and accumulate."""
CONVOLUTION = nn.modules.conv._ConvNd
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def tensors(outputs: Any) -> list[Tensor]:
    """Return all tensors of a network's output, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def run(model: nn.Module, forward: Forward, inputs: Inputs) -> list[Tensor]:
    """Return a network's outputs for a batch, without gradients."""
    with torch.no_grad():
        return tensors(forward(model, inputs))


def distance(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the squared distance of outputs over their squared length, averaged over all floating-point outputs."""
    shares = []
    for first, second in zip(before, after, strict=True):
        if first.is_floating_point():
            moved, length = (second.double() - first.double()).square().sum(), first.double().square().sum()
            shares.append(float(moved / length.clamp(min=1e-12)))
    return sum(shares) / max(len(shares), 1)


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Return True if two lists of outputs agree in shape and, up to rounding of float32, in value."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(first, second, strict=True)]
    return all((a - b).abs().max() <= 1e-3 * max(float(a.abs().max()), 1e-6) for a, b in pairs if a.numel())


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the submodule of that name is, in the same mode, in place."""
    parent, _, place = name.rpartition(".")
    old = model.get_submodule(name)
    setattr(model.get_submodule(parent), place, module.train(old.training))


def macs(model: nn.Module, forward: Forward, inputs: Inputs) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution and linear layer for one example by the layer's name.

    Args:
        model: Network.
        forward: `forward(model, inputs)` calls the network.
        inputs: A batch; its length is divided out.
    """
    counts: dict[str, int] = {}
    length = max(1, len(next(iter(inputs.values()))))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, PRODUCTS)}
    for call in layer_calls(model, forward, inputs, layers):
        if isinstance(call.output, Tensor):
            weight: Any = layers[call.name].weight
            counts[call.name] = counts.get(call.name, 0) + call.output.numel() // length * weight[0].numel()
    return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCall:
    """One call of a layer in a forward pass.

    Attributes:
        name: Name of the layer in the network.
        input: Its first positional input; None if there is none.
        output: What it returned.
    """

    name: str
    input: Any
    output: Any


def layer_calls(
    model: nn.Module, forward: Forward, inputs: Inputs, names: Iterable[str], *, gradients: bool = False
) -> list[LayerCall]:
    """Run a network and return the calls of some of its layers, in the order in which they returned.

    Args:
        model: Left as it was.
        forward: Calls the network.
        inputs: A batch.
        names: Names of the layers.
        gradients: True to record the autograd graph, so that tensors have a `grad_fn`.
    """
    calls: list[LayerCall] = []

    def record(name: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append(LayerCall(name=name, input=args[0] if args else None, output=output))

    with ExitStack() as hooks, torch.set_grad_enabled(gradients):
        for name in names:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(partial(record, name)))
        forward(model, inputs)
    return calls


def shared_parameters(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that several modules hold."""
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    return {key for key, count in holders.items() if count > 1}
