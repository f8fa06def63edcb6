"""Integers simulated while a torch network trains: Jacob et al. 2018, section 3.

Weights and the inputs of layers are rounded in the forward pass; gradients pass as if they had not been (the straight-through
estimator of Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons"), and are cut where a value lies
outside its range. Loads torch: imported where a network is at hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchestrator.plugin.networks import PRODUCTS

MOMENTUM = 0.99
"""Of the moving average of an input's range."""


class FakeWeight(nn.Module):
    """Weights rounded to signed integers with one scale for each output channel.

    Args:
        largest: The largest integer: 127, or 64 where sums would overflow.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, weight: Tensor) -> Tensor:
        """Shape (out, ...) in and out."""
        scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-12) / self.largest
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self.largest, self.largest)


class FakeInput(nn.Module):
    """Activations rounded to 8 bits in a range that follows them by a moving average while training.

    Args:
        symmetric: Signed integers with a zero point of 0; else unsigned ones with a free zero point.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, *, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        if self.training:
            self._follow(x.detach().float())
        if not self.seen:
            return x
        if self.symmetric:
            scale = torch.maximum(-self.low, self.high).clamp(min=1e-12) / 127
            bounds = (-127, 127)
        else:
            scale = (self.high - self.low).clamp(min=1e-12) / 255
            bounds = (0, 255)
        zero = torch.zeros_like(scale) if self.symmetric else (-self.low / scale).round().clamp(0, 255)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero.int(), *bounds).to(x.dtype)

    def _follow(self, x: Tensor) -> None:
        """0 lies in every range: padding has to be exact."""
        low, high = (bound.to(self.low.device) for bound in torch.aminmax(x))
        share = torch.where(self.seen, MOMENTUM, 0.0)
        self.low.lerp_(low.clamp(max=0.0), 1 - share)
        self.high.lerp_(high.clamp(min=0.0), 1 - share)
        self.seen.fill_(True)


@contextmanager
def fake_quantizers(model: nn.Module, *, largest: int, symmetric: bool) -> Iterator[None]:
    """Round the weights and inputs of all convolutions and linear layers; at the end the float weights are left as trained."""
    layers = [module for module in model.modules() if isinstance(module, PRODUCTS)]
    handles = []
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", FakeWeight(largest))
        layer.add_module("fake_input", FakeInput(symmetric=symmetric))
        handles.append(layer.register_forward_pre_hook(_rounded))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            del layer.fake_input
            _uncover(layer)


def _rounded(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(layer.get_submodule("fake_input")(x) if k == 0 else x for k, x in enumerate(arguments))


def _uncover(layer: nn.Module) -> None:
    """Take the last parametrization of a layer's weight off; those that were there before (masks) stay."""
    chains: Any = layer.parametrizations
    chain = chains["weight"]
    if len(chain) > 1:
        del chain[-1]
    else:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
