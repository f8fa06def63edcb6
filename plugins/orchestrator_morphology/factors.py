"""Factorisation of convolutions and linear layers into smaller ones. Imports torch; imported on use.

Every factorisation approximates the weights best (truncated singular value decomposition), not the layer's responses to data as
in Zhang et al. 2015; recovery training compensates for that.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.plugin.networks import CONVOLUTION, LayerCall


def spectra(layer: Any, kind: str) -> tuple[Tensor, ...]:
    """Return the singular values (float64, descending) that determine the ranks of a layer's factors; () if it has none.

    Args:
        layer: A convolution or linear layer.
        kind: "spatial", "channel" or "tucker"; linear layers and 1x1 convolutions have one factorisation only.
    """
    return tuple(torch.linalg.svdvals(matrix) for matrix in _matrices(layer, kind))


def ranks(values: Sequence[Tensor], energy: float, multiple: int = 1) -> tuple[int, ...]:
    """Return the least ranks whose factors keep a share of the squared weights, rounded up to a multiple.

    With two modes (tucker) each may lose half: the squared error of both together is at most the sum.
    """
    lost = (1 - energy) / len(values)
    chosen = []
    for singular in values:
        kept = singular.square().cumsum(0) / singular.square().sum().clamp(min=1e-300)
        least = int((kept < 1 - lost - 1e-12).sum()) + 1
        chosen.append(min(len(singular), math.ceil(min(least, len(singular)) / multiple) * multiple))
    return tuple(chosen)


def cheaper_ranks(
    layer: Any, call: LayerCall, kind: str, energy: float, multiple: int, values: Sequence[Tensor] | None = None
) -> tuple[int, ...]:
    """Return the ranks that keep a share of the squared weights; () if such factors do not exist or are not cheaper.

    Args:
        layer: A convolution or linear layer.
        call: Its call.
        kind: "spatial", "channel" or "tucker".
        energy: Share of the squared weights.
        multiple: Channel multiple of the target.
        values: Its singular values; None: computed.
    """
    values = spectra(layer, kind) if values is None else values
    chosen = ranks(values, energy, multiple) if values else ()
    return chosen if chosen and macs(layer, call, kind, chosen) < macs(layer, call, kind) else ()


def macs(layer: Any, call: LayerCall, kind: str, chosen: Sequence[int] | None = None) -> int:
    """Return the multiply-accumulates of a layer for one example: as it is, or with factors of these ranks."""
    outs, fan_in = layer.weight.shape[0], layer.weight[0].numel()
    places = call.output.numel() // len(call.output) // outs
    if chosen is None:
        return int(places * outs * fan_in)
    kind = kind_of(layer, kind)
    if kind == "channel":
        return int(places * chosen[0] * (fan_in + outs))
    ins = layer.in_channels
    if kind == "spatial":
        middle = call.output.shape[-2] * call.input.shape[-1]
        return int(chosen[0] * (middle * ins * layer.kernel_size[0] + places * outs * layer.kernel_size[1]))
    last, first = chosen
    return int(call.input[0, 0].numel() * ins * first + places * last * (first * math.prod(layer.kernel_size) + outs))


def factorised(layer: Any, kind: str, chosen: Sequence[int]) -> nn.Sequential:
    """Return the factors of a layer at these ranks, in sequence."""
    kind = kind_of(layer, kind)
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.Linear):
        second, first = _split(weight, chosen[0])
        pair = nn.Linear(layer.in_features, chosen[0], bias=False), nn.Linear(chosen[0], layer.out_features, bias=False)
        return sequence(layer, [(pair[0], first), (pair[1], second)])
    if kind == "channel":
        second, first = _split(weight.flatten(1), chosen[0])
        into = conv(layer, layer.in_channels, chosen[0], layer.kernel_size)
        return sequence(layer, [(into, first), (pointwise(layer, chosen[0], layer.out_channels), second)])
    if kind == "spatial":
        (high, wide), rank = layer.kernel_size, chosen[0]
        second, first = _split(_matrices(layer, kind)[0], rank)  # (outputs x columns) (inputs x rows)
        down = conv(layer, layer.in_channels, rank, (high, 1), axes=(0,))
        across = conv(layer, rank, layer.out_channels, (1, wide), axes=(1,))
        second = second.reshape(layer.out_channels, wide, rank).permute(0, 2, 1)
        return sequence(layer, [(down, first), (across, second)])
    last, first = (_basis(matrix, rank) for matrix, rank in zip(_matrices(layer, kind), chosen, strict=True))
    core = torch.einsum("oi...,or,is->rs...", weight, last, first)
    return sequence(
        layer,
        [
            (pointwise(layer, layer.in_channels, chosen[1]), first.T),
            (conv(layer, chosen[1], chosen[0], layer.kernel_size), core),
            (pointwise(layer, chosen[0], layer.out_channels), last),
        ],
    )


def conv(
    like: Any, ins: int, outs: int, kernel: Sequence[int], *, axes: Sequence[int] | None = None, groups: int = 1
) -> nn.Module:
    """Return a convolution of another's kind, without bias, with its stride, padding and dilation along these axes (all)."""
    axes = range(len(kernel)) if axes is None else axes

    def along(values: Any, default: int) -> Any:
        return values if isinstance(values, str) else tuple(v if i in axes else default for i, v in enumerate(values))

    cls: Any = next(c for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(like, c))
    layer: nn.Module = cls(
        ins,
        outs,
        tuple(kernel),
        stride=along(like.stride, 1),
        padding=along(like.padding, 0),
        dilation=along(like.dilation, 1),
        padding_mode=like.padding_mode,
        groups=groups,
        bias=False,
    )
    return layer


def pointwise(like: Any, ins: int, outs: int) -> nn.Module:
    """Return a 1 x 1 convolution of another's kind, without bias."""
    return conv(like, ins, outs, [1] * len(like.kernel_size), axes=())


def sequence(layer: Any, parts: Sequence[tuple[nn.Module, Tensor]]) -> nn.Sequential:
    """Return layers with these weights in sequence, of the old one's type and device; the last gets its bias."""
    old = layer.weight
    for part, weight in parts:
        shaped = weight.reshape(part.weight.shape).to(old)  # type: ignore[arg-type]
        part.weight = nn.Parameter(shaped.contiguous(), requires_grad=old.requires_grad)
    parts[-1][0].bias = layer.bias
    return nn.Sequential(*(part for part, _ in parts))


def kind_of(layer: Any, kind: str) -> str:
    """Return the factorisation of a layer: linear layers and 1 x 1 convolutions have only "channel"."""
    return "channel" if isinstance(layer, nn.Linear) or math.prod(layer.kernel_size) == 1 else kind


def _matrices(layer: Any, kind: str) -> tuple[Tensor, ...]:
    """Return the matrices whose singular values determine the ranks: of "tucker" the unfoldings by outputs and by inputs."""
    kind = kind_of(layer, kind)
    weight = layer.weight.detach().double()
    if isinstance(layer, CONVOLUTION) and layer.groups > 1:
        return ()
    if kind == "channel":
        return (weight.flatten(1),)
    if kind == "tucker":
        return weight.flatten(1), weight.transpose(0, 1).flatten(1)
    if not isinstance(layer, nn.Conv2d) or min(layer.kernel_size) == 1:
        return ()
    outs, ins, high, wide = weight.shape
    return (weight.permute(0, 3, 1, 2).reshape(outs * wide, ins * high),)


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return two factors of a matrix, each with the root of the singular values."""
    left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    root = singular[:rank].sqrt()
    return (left[:, :rank] * root, root[:, None] * right[:rank])


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors of a matrix, as columns."""
    basis: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
    return basis
