"""What methods on torch networks need of them again and again. Loads torch: plugins import it where they use it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Forward = Callable[[nn.Module, Inputs], Any]
PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers that multiply and accumulate."""


def tensors(outputs: Any) -> list[Tensor]:
    """All tensors of what a network returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def run(model: nn.Module, forward: Forward, inputs: Inputs) -> list[Tensor]:
    """A network's outputs for a batch, without gradients."""
    with torch.no_grad():
        return tensors(forward(model, inputs))


def distance(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """How far outputs moved: the squared distance over the squared length, averaged over all floating outputs (0: not at all)."""
    shares = []
    for first, second in zip(before, after, strict=True):
        if first.is_floating_point():
            moved, length = (second.double() - first.double()).square().sum(), first.double().square().sum()
            shares.append(float(moved / length.clamp(min=1e-12)))
    return sum(shares) / max(len(shares), 1)


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two lists of outputs agree in shape and, up to rounding of float32, in value."""
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
    """Multiply-accumulates of each convolution and linear layer for one example: `{layer's name: count}`.

    Args:
        inputs: A batch; its length is divided out.
    """
    counts: dict[str, int] = {}
    length = max(1, len(next(iter(inputs.values()))))

    def count(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            weight = module.weight
            if isinstance(output, Tensor) and isinstance(weight, Tensor):
                counts[name] = counts.get(name, 0) + output.numel() // length * weight[0].numel()

        return hook

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, PRODUCTS)]
    handles = [module.register_forward_hook(count(name)) for name, module in layers]
    try:
        run(model, forward, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return counts
