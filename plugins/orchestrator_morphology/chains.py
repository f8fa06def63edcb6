"""Inner chains: two layers, and channels between them that no other layer reads. Imports torch; imported on use.

An inverted residual (1x1 - depthwise - 1x1; Sandler et al. 2018), two convolutions in a row and a transformer's feed-forward
(Vaswani et al. 2017) are such chains: their inner width can change alone. Squeeze-and-excitation (Hu et al. 2018) on the way is
a part of the chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from orchestrator.plugin.channel_groups import ChannelGroup, GroupMember, channel_graph, removable_groups
from orchestrator.plugin.networks import BATCH_NORMS, CONVOLUTION, shared_parameters

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext


@dataclass(frozen=True, kw_only=True, slots=True)
class InnerChain:
    """The layers that the inner channels of a chain pass.

    Attributes:
        channels: Inner width.
        outputs: Names of the layers whose output channels they are: the producer first, then batch norms, depthwise
            convolutions, PReLUs and the last layers of squeeze-and-excitations.
        inputs: Names of the layers that read them: the consumer, and the first layers of squeeze-and-excitations.
    """

    channels: int
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


def inner_chains(model: nn.Module, context: "BuildContext") -> list[InnerChain]:
    """Return the inner chains of a network in its order.

    Each was tried: without some of its channels the network computes what it computes with these channels silenced.

    Raises:
        MethodError: The network cannot be traced.
    """
    groups, shared = removable_groups(model, context, inner=True), shared_parameters(model)
    with channel_graph(model, context) as graph:
        chains = [_chain(group, graph.members(group), shared) for group in groups]
    return [chain for chain in chains if chain is not None]


def _chain(group: ChannelGroup, members: Sequence[GroupMember], shared: set[int]) -> InnerChain | None:
    """Return the chain of a group; None if it has several producers or consumers, or parts of a layer only."""
    outputs, inputs = ([m for m in members if m.outputs is side] for side in (True, False))
    dense = [m for m in outputs if isinstance(m.module, nn.Linear) or getattr(m.module, "groups", 0) == 1]
    private = not any(id(p) in shared for m in members for p in m.module.parameters(recurse=False))
    if group.parts > 1 or len(dense) != len(inputs) or not private or not all(_is_complete(m, group.channels) for m in members):
        return None
    names = (tuple(m.name for m in side) for side in (outputs, inputs))
    return InnerChain(channels=group.channels, outputs=next(names), inputs=next(names))


def _is_complete(member: GroupMember, channels: int) -> bool:
    """Return True if all channels of that side of the layer are in the group, in order."""
    layer: Any = member.module
    spread = len(member.channels) // channels
    index = torch.arange(channels * spread)
    width = len(layer.weight) if member.outputs else layer.weight.shape[1]
    return len(index) == width and torch.equal(member.channels, index) and torch.equal(member.roots, index // max(spread, 1))


def select(model: nn.Module, chain: InnerChain, channels: Sequence[int], shares: Sequence[float] | None = None) -> None:
    """Replace the inner channels of a chain by copies of the given ones, in place.

    Args:
        model: Network, changed in place.
        chain: One of its chains.
        channels: For each new channel the present one whose weights it gets.
        shares: Factor on the weights that read each new channel; None: 1.
    """
    device = next(model.get_submodule(chain.outputs[0]).parameters()).device
    index = torch.tensor(list(channels), device=device)
    for name in chain.outputs:
        layer: Any = model.get_submodule(name)
        stored: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for tensors in stored:
            for key, tensor in tensors.items():
                if tensor is not None and tensor.ndim and len(tensor) == chain.channels:
                    tensors[key] = _like(tensor, tensor.detach().index_select(0, index))
        for attribute in ("out_features", "out_channels", "num_features", "num_parameters"):
            if hasattr(layer, attribute):
                setattr(layer, attribute, len(channels))
        if isinstance(layer, CONVOLUTION) and layer.groups > 1:
            layer.in_channels = layer.groups = len(channels)
    for name in chain.inputs:
        reader: Any = model.get_submodule(name)
        weight = reader.weight.detach()
        spread = weight.shape[1] // chain.channels  # above 1 where a feature map is flattened into a linear layer
        columns = weight.reshape(len(weight), chain.channels, spread, *weight.shape[2:]).index_select(1, index)
        if shares is not None:
            scale = torch.tensor(list(shares), dtype=weight.dtype, device=device)
            columns = columns * scale.view(1, -1, *[1] * (columns.ndim - 2))
        reader.weight = _like(reader.weight, columns.reshape(len(weight), -1, *weight.shape[2:]))
        setattr(reader, "in_features" if isinstance(reader, nn.Linear) else "in_channels", len(channels) * spread)


def importance(model: nn.Module, chain: InnerChain) -> Tensor:
    """Return the magnitude of each inner channel (float64, shape (channels,)): the product of the norms of its weights.

    A batch norm counts with its factor. Magnitude as in Li et al. 2017, "Pruning Filters for Efficient ConvNets".
    """
    score = torch.ones(chain.channels, dtype=torch.float64)
    for name in chain.outputs:
        layer: Any = model.get_submodule(name)
        if isinstance(layer, CONVOLUTION | nn.Linear):
            score = score * layer.weight.detach().double().flatten(1).square().sum(1).sqrt()
        elif isinstance(layer, BATCH_NORMS):
            if layer.weight is not None:
                score = score * layer.weight.detach().double().abs()
            if layer.running_var is not None:
                score = score / (layer.running_var.double() + layer.eps).sqrt()
    for name in chain.inputs:
        weight: Any = model.get_submodule(name).weight
        score = score * weight.detach().double().reshape(len(weight), chain.channels, -1).square().sum((0, 2)).sqrt()
    return score


def strongest(model: nn.Module, chain: InnerChain, count: int) -> list[int]:
    """Return the `count` inner channels of greatest magnitude, in their order."""
    order = torch.argsort(importance(model, chain), descending=True, stable=True)
    return sorted(order[:count].tolist())


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new.contiguous(), requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
