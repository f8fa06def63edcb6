"""Fake quantization of a torch network in training (Jacob et al. 2018, section 3). Imports torch; imported on use.

Weights and the inputs of layers are rounded in the forward pass; gradients ignore the rounding (the straight-through estimator of
Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons") and are zero for values outside the range.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchestrator.plugin.networks import PRODUCTS

MOMENTUM = 0.99
"""Momentum of the moving average of an input's range."""


class FakeWeight(nn.Module):
    """Rounding of weights to signed integers with one scale for each output channel.

    Args:
        largest: The largest integer: 127, or 64 if sums would overflow.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weights, shape (out, ...)."""
        scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-12) / self.largest
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -self.largest, self.largest)


class FakeInput(nn.Module):
    """Rounding of activations to 8 bits, in a range that is a moving average over the training.

    Args:
        symmetric: True for signed integers with a zero point of 0, False for unsigned ones with a free zero point.
    """

    low: Tensor
    high: Tensor
    calibrated: Tensor

    def __init__(self, *, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("calibrated", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded activations, of the same shape."""
        if self.training:
            self._update(x.detach().float())
        if not self.calibrated:
            return x
        if self.symmetric:
            scale = torch.maximum(-self.low, self.high).clamp(min=1e-12) / 127
            bounds = (-127, 127)
        else:
            scale = (self.high - self.low).clamp(min=1e-12) / 255
            bounds = (0, 255)
        zero = torch.zeros_like(scale) if self.symmetric else (-self.low / scale).round().clamp(0, 255)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero.int(), *bounds).to(x.dtype)

    def _update(self, x: Tensor) -> None:
        """Update the range, which always includes 0, because padding must be exact."""
        low, high = (bound.to(self.low.device) for bound in torch.aminmax(x))
        share = torch.where(self.calibrated, MOMENTUM, 0.0)
        self.low.lerp_(low.clamp(max=0.0), 1 - share)
        self.high.lerp_(high.clamp(min=0.0), 1 - share)
        self.calibrated.fill_(True)


@contextmanager
def fake_quantizers(model: nn.Module, *, largest: int, symmetric: bool) -> Iterator[None]:
    """Round the weights and inputs of all convolutions and linear layers inside; the float weights keep their training."""
    with ExitStack() as stack:
        for layer in [module for module in model.modules() if isinstance(module, PRODUCTS)]:
            parametrize.register_parametrization(layer, "weight", FakeWeight(largest))
            stack.callback(_remove_last_parametrization, layer)
            layer.add_module("fake_input", FakeInput(symmetric=symmetric))
            stack.callback(delattr, layer, "fake_input")
            stack.enter_context(layer.register_forward_pre_hook(_round_input))
        yield


def _round_input(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(layer.get_submodule("fake_input")(x) if k == 0 else x for k, x in enumerate(arguments))


def _remove_last_parametrization(layer: nn.Module) -> None:
    """Remove the last parametrization of a layer's weight; earlier ones stay."""
    chains: Any = layer.parametrizations
    chain = chains["weight"]
    if len(chain) > 1:
        del chain[-1]
    else:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
