"""Convolutions and linear layers as products of smaller ones. Loads torch: imported lazily.

Every factorisation is the best one of the weights (a truncated singular value decomposition), not of the layer's responses to
data as in Zhang et al. 2015; recovery training takes that place.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator_morphology.dataflow import Call

_Conv = nn.modules.conv._ConvNd


def spectra(layer: Any, kind: str) -> tuple[Tensor, ...]:
    """The singular values (float64, descending) that the ranks of a layer's factors are chosen by; () where it has no such.

    Args:
        layer: A convolution or linear layer.
        kind: "spatial", "channel" or "tucker"; linear layers and 1x1 convolutions have one factorisation only.
    """
    return tuple(torch.linalg.svdvals(matrix) for matrix in _matrices(layer, kind))


def ranks(values: Sequence[Tensor], energy: float, multiple: int = 1) -> tuple[int, ...]:
    """The least ranks whose factors keep a share of the squared weights, rounded up to a multiple.

    With two modes (tucker) each may lose half: the squared error of both together is at most the sum.
    """
    lost = (1 - energy) / len(values)
    found = []
    for singular in values:
        kept = singular.square().cumsum(0) / singular.square().sum().clamp(min=1e-300)
        least = int((kept < 1 - lost - 1e-12).sum()) + 1
        found.append(min(len(singular), math.ceil(min(least, len(singular)) / multiple) * multiple))
    return tuple(found)


def macs(layer: Any, call: Call, kind: str, chosen: Sequence[int] | None = None) -> int:
    """Multiply-accumulates of a layer for one example: as it is, or with factors of these ranks."""
    given, made = call.given, call.made
    if given is None or made is None:
        return 0
    outs, fan_in = layer.weight.shape[0], layer.weight[0].numel()
    places = made.numel() // len(made) // outs
    if chosen is None:
        return int(places * outs * fan_in)
    kind = kind_of(layer, kind)
    if kind == "channel":
        return int(places * chosen[0] * (fan_in + outs))
    ins = layer.in_channels
    if kind == "spatial":
        middle = made.shape[-2] * given.shape[-1]
        return int(chosen[0] * (middle * ins * layer.kernel_size[0] + places * outs * layer.kernel_size[1]))
    last, first = chosen
    return int(given[0, 0].numel() * ins * first + places * last * (first * math.prod(layer.kernel_size) + outs))


def factorised(layer: Any, kind: str, chosen: Sequence[int]) -> nn.Sequential:
    """A layer as its factors of these ranks, one after the other."""
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
    """A convolution of another's kind, without bias; it strides, pads and dilates as the other does along these axes (all)."""
    axes = range(len(kernel)) if axes is None else axes

    def along(values: Any, default: int) -> Any:
        return values if isinstance(values, str) else tuple(v if i in axes else default for i, v in enumerate(values))

    cls: Any = next(c for c in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(like, c))
    made: nn.Module = cls(
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
    return made


def pointwise(like: Any, ins: int, outs: int) -> nn.Module:
    """A 1 x 1 convolution of another's kind, without bias."""
    return conv(like, ins, outs, [1] * len(like.kernel_size), axes=())


def sequence(layer: Any, parts: Sequence[tuple[nn.Module, Tensor]]) -> nn.Sequential:
    """Layers with these weights, where and as the old one's are; the last takes its bias."""
    old = layer.weight
    for part, weight in parts:
        shaped = weight.reshape(part.weight.shape).to(old)  # type: ignore[arg-type]
        part.weight = nn.Parameter(shaped.contiguous(), requires_grad=old.requires_grad)
    parts[-1][0].bias = layer.bias
    return nn.Sequential(*(part for part, _ in parts))


def kind_of(layer: Any, kind: str) -> str:
    """The factorisation that a layer gets: linear layers and 1 x 1 convolutions have only "channel"."""
    return "channel" if isinstance(layer, nn.Linear) or math.prod(layer.kernel_size) == 1 else kind


def _matrices(layer: Any, kind: str) -> tuple[Tensor, ...]:
    """The matrices whose singular values tell the ranks: of "tucker" the unfoldings by outputs and by inputs."""
    kind = kind_of(layer, kind)
    weight = layer.weight.detach().double()
    if isinstance(layer, _Conv) and layer.groups > 1:
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
    """Two factors of a matrix, each with the root of the singular values."""
    left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    root = singular[:rank].sqrt()
    return (left[:, :rank] * root, root[:, None] * right[:rank])


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """The strongest directions of a matrix's columns, as columns."""
    basis: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
    return basis
