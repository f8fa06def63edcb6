"""Batch norms out of the way of quantization-aware training: Jacob et al. 2018, section 3.2.

The runtime folds them into the convolution before them, so it is the folded weights that have to bear rounding. Loads torch:
imported where a network is at hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fusion, parametrize

from orchestrator.plugin.networks import Forward, Inputs, replace, run, same

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold(model: nn.Module, forward: Forward, inputs: Inputs) -> int:
    """Fold batch norms into the convolutions and linear layers that feed them, in place, where the outputs stay the same.

    Args:
        model: In eval mode.
        inputs: A batch to compare outputs on.

    Returns:
        Batch norms that are gone.
    """
    folded = 0
    for layer_name, norm_name in _fed(model, forward, inputs):
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        before = run(model, forward, inputs)
        fuse: Any = fusion.fuse_conv_bn_eval if isinstance(layer, CONVOLUTIONS) else fusion.fuse_linear_bn_eval
        replace(model, layer_name, fuse(layer, norm))
        replace(model, norm_name, nn.Identity())
        if same(before, run(model, forward, inputs)):
            folded += 1
        else:  # somebody else reads the layer's output too
            replace(model, layer_name, layer)
            replace(model, norm_name, norm)
    return folded


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keep the statistics of the batch norms that are left while the network trains; their scales and shifts learn."""
    norms = {name: m for name, m in model.named_modules() if isinstance(m, NORMS) and m.track_running_stats}
    fixed = {name: FrozenNorm(norm) for name, norm in norms.items()}
    for name, module in fixed.items():
        replace(model, name, module)
    try:
        yield
    finally:
        for name, norm in norms.items():
            fixed[name].give_back(norm)
            replace(model, name, norm)


class FrozenNorm(nn.Module):
    """A batch norm that never takes statistics; not one of torch's, so that no training loop estimates them anew.

    Args:
        norm: A batch norm with running statistics.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("mean", norm.running_mean.clone())
        self.register_buffer("variance", norm.running_var.clone())
        self.weight = None if norm.weight is None else nn.Parameter(norm.weight.detach().clone())
        self.bias = None if norm.bias is None else nn.Parameter(norm.bias.detach().clone())
        self.eps = float(norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (examples, channels, ...) in, the same out."""
        return functional.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps)

    def give_back(self, norm: Any) -> None:
        """Write what was learnt into the batch norm that this one was made of."""
        with torch.no_grad():
            for place, learnt in ((norm.weight, self.weight), (norm.bias, self.bias)):
                if place is not None and learnt is not None:
                    place.copy_(learnt)


def _fed(model: nn.Module, forward: Forward, inputs: Inputs) -> list[tuple[str, str]]:
    """Names of layers and of the batch norms that read just what they give, each called once: `[(layer, batch norm)]`."""
    names = {module: name for name, module in model.named_modules()}
    layers = {m for m in names if isinstance(m, (*CONVOLUTIONS, nn.Linear)) and not parametrize.is_parametrized(m)}
    norms = {m for m in names if isinstance(m, NORMS) and m.track_running_stats}
    made: list[tuple[nn.Module, Tensor]] = []
    found: list[tuple[nn.Module, nn.Module]] = []
    calls: list[nn.Module] = []

    def give(module: nn.Module, _: Any, output: Any) -> None:
        calls.append(module)
        made.append((module, output))  # held, so that no other tensor comes to the same place in memory

    def take(module: nn.Module, arguments: Any) -> None:
        calls.append(module)
        found.extend((layer, module) for layer, output in made if arguments and output is arguments[0])

    handles = [m.register_forward_hook(give) for m in layers] + [m.register_forward_pre_hook(take) for m in norms]
    try:
        run(model, forward, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [(names[layer], names[norm]) for layer, norm in found if calls.count(layer) == calls.count(norm) == 1]
