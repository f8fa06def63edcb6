"""Folding and freezing of batch norms for quantization-aware training (Jacob et al. 2018, section 3.2).

The runtime folds batch norms into the convolution before them, so that the folded weights are rounded. Imports torch; imported on
use.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fusion, parametrize

from orchestrator.plugin.networks import BATCH_NORMS, PRODUCTS, Forward, Inputs, layer_calls, replace, run, same


def fold(model: nn.Module, forward: Forward, inputs: Inputs) -> int:
    """Fold batch norms into the convolutions and linear layers before them, in place, if the outputs do not change.

    Args:
        model: Network in eval mode.
        forward: Calls the network.
        inputs: A batch to compare outputs on.

    Returns:
        The number of folded batch norms.
    """
    folded = 0
    for layer_name, norm_name in _pairs(model, forward, inputs):
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        before = run(model, forward, inputs)
        fuse: Any = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fusion.fuse_conv_bn_eval
        replace(model, layer_name, fuse(layer, norm))
        replace(model, norm_name, nn.Identity())
        if same(before, run(model, forward, inputs)):
            folded += 1
        else:  # another layer reads the output of this one too
            replace(model, layer_name, layer)
            replace(model, norm_name, norm)
    return folded


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keep the statistics of the remaining batch norms during training; their scales and shifts are trained."""
    norms = {name: m for name, m in model.named_modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats}
    frozen_norms = {name: FrozenNorm(norm) for name, norm in norms.items()}
    for name, module in frozen_norms.items():
        replace(model, name, module)
    try:
        yield
    finally:
        for name, norm in norms.items():
            frozen_norms[name].copy_to(norm)
            replace(model, name, norm)


class FrozenNorm(nn.Module):
    """A batch norm with fixed statistics; no subclass of torch's, so that no training loop estimates them anew.

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
        """Return the normalised input, shape (examples, channels, ...)."""
        return functional.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps)

    def copy_to(self, norm: Any) -> None:
        """Copy the trained scale and shift into the original batch norm."""
        with torch.no_grad():
            for original, trained in ((norm.weight, self.weight), (norm.bias, self.bias)):
                if original is not None and trained is not None:
                    original.copy_(trained)


def _pairs(model: nn.Module, forward: Forward, inputs: Inputs) -> list[tuple[str, str]]:
    """Return the names of layers and of the batch norms that read their outputs, each called once: `[(layer, batch norm)]`."""
    modules = dict(model.named_modules())
    norms = {n for n, m in modules.items() if isinstance(m, BATCH_NORMS) and m.track_running_stats}
    layers = {n for n, m in modules.items() if isinstance(m, PRODUCTS) and not parametrize.is_parametrized(m)}
    calls = layer_calls(model, forward, inputs, [name for name in modules if name in norms | layers])
    counts = Counter(call.name for call in calls)
    readers = [call for call in calls if call.name in norms and counts[call.name] == 1]
    producers = [call for call in calls if call.name in layers and counts[call.name] == 1]
    return [(producer.name, reader.name) for reader in readers for producer in producers if producer.output is reader.input]
