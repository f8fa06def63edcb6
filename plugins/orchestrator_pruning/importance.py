"""Importance measures: a score for each position of a group of coupled layers. Imports torch; imported on use."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from torch import Tensor, nn

from orchestrator.plugin import MethodError
from orchestrator.plugin.channel_groups import ChannelGraph, ChannelGroup, GroupMember, differentiable
from orchestrator.plugin.networks import BATCH_NORMS, CONVOLUTION, run, tensors

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

EXAMPLES = 512
BATCH = 16
"""Examples whose gradients are summed before they are squared: in larger batches they cancel each other."""
BINS = 32
"""Bins of the histogram of a channel's activations."""
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Measure = Callable[[nn.Module, ChannelGraph, Sequence[ChannelGroup], "BuildContext"], list[Tensor]]


def scores(
    kind: str, model: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], context: "BuildContext"
) -> list[Tensor]:
    """Return the importance of each position of each group.

    Args:
        kind: A name in `MEASURES`.
        model: The network of `graph`.
        graph: Dependency graph.
        groups: Groups to rank.
        context: Context of the build.

    Returns:
        For each group float32 of shape (units,). Taylor scores and batch-norm scales are comparable between groups; other
        measures are normalised to a mean of 1 in each group.

    Raises:
        MethodError: The network lacks what the measure needs.
    """
    measured = MEASURES[kind](model, graph, groups, context)
    by_unit = [score.detach().float().view(g.parts, g.units).mean(0) for g, score in zip(groups, measured, strict=True)]
    return by_unit if kind in ABSOLUTE else [score / score.mean().clamp(min=1e-12) for score in by_unit]


def batch_norms(graph: ChannelGraph, group: ChannelGroup) -> list[GroupMember]:
    """Return the batch norms of a group that have a scale."""
    return [m for m in graph.members(group) if isinstance(m.module, BATCH_NORMS) and m.module.affine]


def _magnitude(norm: int, _: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], __: "BuildContext") -> list[Tensor]:
    """Return the p-norm of the weights of each channel (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""
    return [graph.score(group, torch_pruning.importance.GroupMagnitudeImportance(p=norm, normalizer=None)) for group in groups]


def _taylor(model: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], context: "BuildContext") -> list[Tensor]:
    """Return the change of the loss when a channel is silenced, to first order.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning": gradient times weight, summed here over all weights
    that read the channel, because the channel reaches the output through these; the root of the squares summed over batches.
    Without labels the loss is a random projection of the outputs, whose expected squared change is their squared distance. (The
    distance to a teacher has no gradient at an unpruned network, which equals its teacher.)
    """
    readers = [_readers(graph, group) for group in groups]
    totals = [torch.zeros(group.channels) for group in groups]
    for products in gradient_times_weight(model, {m.module for members in readers for m in members}, context):
        for total, group, members in zip(totals, groups, readers, strict=True):
            effects = [(m, _by_channel(m, products[m.module])) for m in members if m.module in products]
            total += _sum_by_root(group, effects).square()
    return [total.sqrt() for total in totals]


def gradient_times_weight(model: nn.Module, layers: set[nn.Module], context: "BuildContext") -> Iterator[dict[nn.Module, Tensor]]:
    """Yield for each small batch of samples `{layer: gradient of the loss times weight}`, of the weight's shape.

    Raises:
        MethodError: The task has no examples, or no output of the network has a gradient.
    """
    generator = torch.Generator().manual_seed(context.seed)
    empty = True
    with differentiable(model):
        for inputs, labels in context.samples(EXAMPLES, BATCH):
            model.zero_grad(set_to_none=True)
            outputs = context.forward(model, inputs)
            if labels is not None and context.task_loss is not None:
                loss = context.task_loss(outputs, labels)
            else:
                loss = _projection(outputs, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            weights = {layer: _weight(layer) for layer in layers}
            yield {layer: w.detach() * w.grad for layer, w in weights.items() if w.grad is not None}
            empty = False
        model.zero_grad(set_to_none=True)
    if empty:
        raise MethodError("the Taylor importance needs examples, but the task has none; add a train or calibration split")


def _projection(outputs: Any, generator: torch.Generator) -> Tensor:
    floats = [t.float() for t in tensors(outputs) if t.is_floating_point() and t.requires_grad]
    if not floats:
        raise MethodError("no output of the network is floating-point with a gradient; choose another importance")
    return torch.stack([(t * torch.randn(t.shape, generator=generator).to(t.device)).sum() for t in floats]).sum()


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise MethodError(f"a {type(layer).__name__} without a weight cannot be ranked; choose another importance")
    return weight


def _readers(graph: ChannelGraph, group: ChannelGroup) -> list[GroupMember]:
    """Return the convolutions and linear layers that read a group's channels, or those that produce them if none does."""
    layers = [m for m in graph.members(group) if isinstance(m.module, CONVOLUTION | nn.Linear)]
    return [m for m in layers if not m.outputs] or layers


def _by_channel(member: GroupMember, product: Tensor) -> Tensor:
    """Return a tensor of the weight's shape, summed for each channel of that side of its layer that is in the group."""
    layer = member.module
    transposed = isinstance(layer, TRANSPOSED)
    if member.outputs is not transposed:  # the first axis of the weight: outputs, of a transposed convolution inputs
        return product.flatten(1).sum(1)
    parts = layer.groups if isinstance(layer, CONVOLUTION) else 1
    return product.reshape(parts, product.shape[0] // parts, product.shape[1], -1).sum((1, 3)).flatten()


def _sum_by_root(group: ChannelGroup, values: Sequence[tuple[GroupMember, Tensor]]) -> Tensor:
    """Return the values of several layers' channels, summed for each channel of the group's root."""
    total = torch.zeros(group.channels)
    for member, value in values:
        total.index_add_(0, member.roots, value.detach().float().cpu()[member.channels])
    return total


def _batch_norm_scale(
    model: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], context: "BuildContext"
) -> list[Tensor]:
    """Return the scales of batch norms, averaged over the coupled ones (Liu et al. 2017, "Network Slimming").

    Groups without a batch norm are ranked by their l2 norm, scaled to the mean of all batch-norm scales.
    """
    norms = [batch_norms(graph, group) for group in groups]
    if not any(norms):
        raise MethodError("no batch norm normalises channels that can be removed; choose another importance")
    scales = [
        _sum_by_root(group, [(m, _weight(m.module).abs()) for m in members]) / max(len(members), 1)
        for group, members in zip(groups, norms, strict=True)
    ]
    mean = float(torch.cat([score for score, members in zip(scales, norms, strict=True) if members]).mean())
    magnitudes = _magnitude(2, model, graph, groups, context)
    return [
        scale if members else magnitude * (mean / magnitude.mean().clamp(min=1e-12))
        for scale, members, magnitude in zip(scales, norms, magnitudes, strict=True)
    ]


def _geometric_median(_: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], __: "BuildContext") -> list[Tensor]:
    """Return the summed distance of a filter to all others of its layer: those near the median are replaceable.

    He et al. 2019, "Filter Pruning via Geometric Median" (FPGM); averaged over the layers that produce the channels.
    """
    scores = []
    for group in groups:
        distances = []
        for member in graph.members(group):
            layer = member.module
            if member.outputs and isinstance(layer, CONVOLUTION | nn.Linear):
                weight = _weight(layer).detach().float()
                if isinstance(layer, TRANSPOSED):
                    weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
                summed = torch.cdist(weight.flatten(1)[None], weight.flatten(1)[None])[0].sum(1)
                distances.append((member, summed / summed.mean().clamp(min=1e-12)))
        scores.append(_sum_by_root(group, distances))
    return scores


def _activation_entropy(
    model: nn.Module, graph: ChannelGraph, groups: Sequence[ChannelGroup], context: "BuildContext"
) -> list[Tensor]:
    """Return the entropy of a channel's mean activation over the examples, in nats: a constant channel carries no information.

    Luo and Wu 2017, "An Entropy-based Pruning Method for CNN Compression". It is measured at the input of the layers that read
    the channel, after the activation function, and averaged over them.
    """
    readers = [_readers(graph, group) for group in groups]
    means: dict[nn.Module, list[Tensor]] = {m.module: [] for members in readers for m in members if not m.outputs}

    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        value = inputs[0].detach().float()
        axis = value.ndim - 1 if isinstance(layer, nn.Linear) else 1
        others = [k for k in range(1, value.ndim) if k != axis]
        means[layer].append(value.mean(others) if others else value)

    with ExitStack() as hooks:
        for layer in means:
            hooks.enter_context(layer.register_forward_pre_hook(record))
        for inputs, _ in context.samples(EXAMPLES, 64):
            run(model, context.forward, inputs)
    entropies = {layer: _entropy(torch.cat(parts)) for layer, parts in means.items() if parts}
    return [
        _sum_by_root(group, [(m, entropies[m.module]) for m in members if m.module in entropies])
        for group, members in zip(groups, readers, strict=True)
    ]


def _entropy(values: Tensor) -> Tensor:
    """Return for each column the entropy of its values' histogram between its least and its greatest value.

    Args:
        values: Shape (examples, channels).
    """
    low, high = values.amin(0), values.amax(0)
    width = (high - low).clamp(min=1e-12)
    places = ((values - low) / width * BINS).long().clamp(max=BINS - 1)
    shares = nn.functional.one_hot(places, BINS).float().mean(0)
    return -(shares * shares.clamp(min=1e-12).log()).sum(-1)


def _random(_: nn.Module, __: ChannelGraph, groups: Sequence[ChannelGroup], context: "BuildContext") -> list[Tensor]:
    """Return random scores, the control for every other measure (Mittal et al. 2018, "Recovering from Random Pruning")."""
    seeds = [zlib.crc32(f"{context.seed} {group.root}".encode()) for group in groups]
    return [torch.rand(g.channels, generator=torch.Generator().manual_seed(s)) for g, s in zip(groups, seeds, strict=True)]


MEASURES: Mapping[str, Measure] = {
    "taylor": _taylor,
    "l2": partial(_magnitude, 2),
    "l1": partial(_magnitude, 1),
    "batch-norm-scale": _batch_norm_scale,
    "geometric-median": _geometric_median,
    "activation-entropy": _activation_entropy,
    "random": _random,
}
ABSOLUTE = frozenset({"taylor", "batch-norm-scale"})
"""Measures whose scores are comparable between groups."""
