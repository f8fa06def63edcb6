"""Weights that stay zero: fixed masks that later steps and every training respect. Imports torch; plugins import it on use."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchestrator.errors import MethodError

ATTRIBUTE = "_kept_zeros"
"""Attribute of a layer with kept zeros: `{weight's name: boolean tensor, True where the weight is fixed at zero}`. It is a plain
attribute, so that it is copied and pickled with the layer, while its state dict and its exported graph do not change."""


def keep_zeros(model: nn.Module, names: Iterable[str] | None = None) -> None:
    """Fix the weights that are exactly zero now: they stay zero in later steps, through every training, and in the export.

    The mask travels with the layer: deep copies, pickles and checkpoints keep it. A second call adds zeros to the kept ones.

    Args:
        model: Network, changed in place.
        names: Full names of parameters ("features.0.weight"); None: every matrix and convolution
            kernel (two axes or more) that contains a zero.

    Raises:
        MethodError: A name is not a parameter of the network.
    """
    for full in [name for name, p in model.named_parameters() if p.ndim > 1] if names is None else names:
        path, _, name = full.rpartition(".")
        try:
            layer = model.get_submodule(path)
            zeros = _parameter(layer, name).detach() == 0
        except AttributeError:
            raise MethodError(f"keep_zeros: the network has no parameter '{full}'; see `model.named_parameters()`") from None
        if zeros.any():
            setattr(layer, ATTRIBUTE, {**getattr(layer, ATTRIBUTE, {}), name: zeros})


def kept_zeros(model: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield each parameter with kept zeros, and its mask: boolean, of the parameter's shape, True where it is fixed at zero.

    Where a step changed a weight's shape, its present zeros are the kept ones from then on.
    """
    for layer in model.modules():
        masks = getattr(layer, ATTRIBUTE, {})
        for name, mask in masks.items():
            parameter = _parameter(layer, name)
            current = parameter.detach() == 0 if mask.shape != parameter.shape else mask.to(parameter.device)
            masks[name] = current
            yield parameter, current


def reset_zeros(model: nn.Module) -> None:
    """Set the weights that `keep_zeros` fixed back to zero, in place."""
    with torch.no_grad():
        for parameter, zeros in kept_zeros(model):
            parameter.masked_fill_(zeros, 0)


@contextmanager
def zeros_kept(model: nn.Module) -> Iterator[None]:
    """Train inside: the gradients of kept zeros are zero, so that they neither move nor count in the gradient's norm.

    Args:
        model: Network on the device that it is trained on.
    """
    reset_zeros(model)
    with ExitStack() as hooks:
        for parameter, zeros in kept_zeros(model):
            if parameter.requires_grad:
                hooks.callback(parameter.register_hook(partial(_masked, zeros)).remove)  # type: ignore[no-untyped-call]
        yield
    reset_zeros(model)


def _masked(zeros: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(zeros, 0)


def _parameter(layer: nn.Module, name: str) -> nn.Parameter:
    """Return the trained tensor behind a weight, which a parametrization (a fake quantizer) may cover.

    Raises:
        AttributeError: The layer has no such parameter.
    """
    covered = parametrize.is_parametrized(layer, name)
    return layer.get_parameter(f"parametrizations.{name}.original" if covered else name)
