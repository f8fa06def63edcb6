"""Selection of weights by magnitude. Imports torch; imported on use."""

import torch
from torch import Tensor, nn

from orchestrator.plugin.networks import PRODUCTS, shared_parameters

NAMES = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of convolutions, linear layers and attention projections by full name, in the order of the network.

    A weight that several layers share (an embedding that is the last layer too) is left out: it would be sparse in one of them
    only.
    """
    shared = shared_parameters(model)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, (*PRODUCTS, nn.MultiheadAttention))]
    return {
        f"{layer}.{name}" if layer else name: parameter
        for layer, module in layers
        for name, parameter in module.named_parameters(recurse=False)
        if name in NAMES and id(parameter) not in shared
    }


def largest(weight: Tensor, share: float) -> Tensor:
    """Return a mask, True at the largest magnitudes: that share of all elements, the first of equal ones.

    Returns:
        Boolean, of the weight's shape.
    """
    count = round(share * weight.numel())
    order = torch.argsort(weight.abs().flatten(), descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:count]] = True
    return mask.view(weight.shape)


def fits(weight: Tensor, pattern: tuple[int, int]) -> bool:
    """Return True if the weight's input channels (second axis) fill blocks of the pattern without a rest."""
    return weight.shape[1] % pattern[1] == 0


def largest_of(weight: Tensor, stay: int, block: int) -> Tensor:
    """Return a mask, True at the `stay` largest magnitudes of each block of neighbouring input channels.

    Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks".

    Returns:
        Boolean, of the weight's shape.
    """
    blocks = weight.movedim(1, -1)
    shape = blocks.shape
    order = torch.argsort(blocks.abs().reshape(-1, block), dim=1, descending=True, stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :stay], True)
    return mask.view(shape).movedim(-1, 1).contiguous()
