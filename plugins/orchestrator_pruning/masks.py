"""Fixed masks over weights. Imported only where a network is at hand: it loads torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchestrator.plugin.networks import PRODUCTS

WEIGHTS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True, eq=False, slots=True)
class Weight:
    """One weight of a layer."""

    layer: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """Outputs on the first axis, inputs on the second."""
        tensor: Tensor = getattr(self.layer, self.name)
        return tensor.detach()


class Mask(nn.Module):
    """Multiplies a weight by zeros and ones: the gradient of what is zero is zero, whatever trains the network later.

    Args:
        mask: Boolean, of the weight's shape.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask.to(weight.dtype)


def weights(model: nn.Module) -> list[Weight]:
    """The weights of convolutions, linear layers and attention projections, in the order of the network.

    One that several layers share (an embedding that is the last layer too) is left out: it would be sparse in one of them only.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = []
    for module in model.modules():
        names = WEIGHTS if isinstance(module, (*PRODUCTS, nn.MultiheadAttention)) else ()
        for name, parameter in module.named_parameters(recurse=False):
            if name in names and owners[id(parameter)] == 1:
                found.append(Weight(module, name))
    return found


def largest(weight: Tensor, share: float) -> Tensor:
    """True where a weight is of the largest magnitudes; that share of all, of equal ones the first.

    Returns:
        Boolean, of the weight's shape.
    """
    count = round(share * weight.numel())
    order = torch.argsort(weight.abs().flatten(), descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:count]] = True
    return mask.view(weight.shape)


def fits(weight: Weight, pattern: tuple[int, int]) -> bool:
    """Whether its input channels come in whole blocks of the pattern."""
    return weight.tensor.shape[1] % pattern[1] == 0


def largest_of(weight: Tensor, stay: int, block: int) -> Tensor:
    """True where a weight is one of the `stay` largest magnitudes of its block of neighbouring input channels.

    Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks".

    Returns:
        Boolean, of the weight's shape.
    """
    blocks = weight.movedim(1, -1)
    shape = blocks.shape
    order = torch.argsort(blocks.abs().reshape(-1, block), dim=1, descending=True, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :stay], True)
    return mask.view(shape).movedim(-1, 1).contiguous()


def apply(masks: Mapping[Weight, Tensor]) -> None:
    """Lay the masks over the weights, in place; the export makes plain weights of them."""
    for weight, mask in masks.items():
        parametrize.register_parametrization(weight.layer, weight.name, Mask(mask))
