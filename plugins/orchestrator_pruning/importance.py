"""Which channels matter least: one score for each position of a group of coupled layers; the lowest go first.

Imported only where a network is at hand: it loads torch.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import tensors
from orchestrator_pruning.coupled import Coupling, Group, Member, differentiable

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

EXAMPLES = 512
BATCH = 16
"""Examples whose gradients are summed before they are squared: few, or they cancel each other."""
BINS = 32
"""Of the histogram of a channel's activations."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Measure = Callable[[nn.Module, Coupling, Sequence[Group], "BuildContext"], list[Tensor]]


def scores(kind: str, model: nn.Module, coupling: Coupling, groups: Sequence[Group], context: "BuildContext") -> list[Tensor]:
    """The importance of each position of each group.

    Args:
        kind: A name in `MEASURES`.
        model: The network that `coupling` was made of.

    Returns:
        For each group float32 of shape (units,). Taylor scores and scales of batch norms have a unit of their own, so that
        channels of different layers can be ranked together; of the others the mean in a group is 1.

    Raises:
        MethodError: the network has not what the measure needs.
    """
    measured = MEASURES[kind](model, coupling, groups, context)
    found = [score.detach().float().view(g.parts, g.units).mean(0) for g, score in zip(groups, measured, strict=True)]
    return found if kind in ABSOLUTE else [score / score.mean().clamp(min=1e-12) for score in found]


def normed(coupling: Coupling, group: Group) -> list[Member]:
    """The batch norms with a scale over a group's channels."""
    return [m for m in coupling.members(group) if isinstance(m.module, NORMS) and m.module.affine]


def _magnitude(norm: int) -> Measure:
    """The p-norm of all weights that a channel has (Li et al. 2017, "Pruning Filters for Efficient ConvNets")."""

    def measure(_: nn.Module, coupling: Coupling, groups: Sequence[Group], __: "BuildContext") -> list[Tensor]:
        return [coupling.magnitude(group, norm) for group in groups]

    return measure


def _taylor(model: nn.Module, coupling: Coupling, groups: Sequence[Group], context: "BuildContext") -> list[Tensor]:
    """How much the loss changes when a channel is silenced, to first order.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning": gradient times weight, summed here over all weights
    that *read* the channel, because these are what it reaches the output by; of several batches the root of the summed squares.
    Without labels the loss is a random projection of the outputs, whose expected squared change is how far they move. (The
    distance to a teacher would not do: at the teacher itself, which an unpruned network is, its gradient is zero.)
    """
    members = [_weighted(coupling.members(group)) for group in groups]
    totals = [torch.zeros(group.channels) for group in groups]
    for effects in gradient_times_weight(model, {m.module for found in members for m in found}, context):
        for total, group, found in zip(totals, groups, members, strict=True):
            total += _spread(group, [(m, _by_channel(m, effects[m.module])) for m in found if m.module in effects]).square()
    return [total.sqrt() for total in totals]


def gradient_times_weight(model: nn.Module, layers: set[nn.Module], context: "BuildContext") -> Iterator[dict[nn.Module, Tensor]]:
    """For each small batch of samples: `{layer: gradient of the loss times weight}`, in the shape of the weight.

    Raises:
        MethodError: the task has no examples, or the network computes nothing that has a gradient.
    """
    generator = torch.Generator().manual_seed(context.seed)
    found = False
    with differentiable(model):
        for inputs, labels in context.samples(EXAMPLES, BATCH):
            model.zero_grad(set_to_none=True)
            outputs = context.forward(model, inputs)
            if labels is not None and context.task_loss is not None:
                loss = context.task_loss(outputs, labels)
            else:
                loss = _projection(outputs, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            yield {layer: _product(layer) for layer in layers if _weight(layer).grad is not None}
            found = True
        model.zero_grad(set_to_none=True)
    if not found:
        raise MethodError("the Taylor importance needs examples, but the task has none")


def _projection(outputs: Any, generator: torch.Generator) -> Tensor:
    floats = [t.float() for t in tensors(outputs) if t.is_floating_point() and t.requires_grad]
    if not floats:
        raise MethodError("the network gives no floating-point output, so that nothing has a gradient")
    return torch.stack([(t * torch.randn(t.shape, generator=generator).to(t.device)).sum() for t in floats]).sum()


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise MethodError(f"a {type(layer).__name__} without a weight cannot be ranked")
    return weight


def _product(layer: nn.Module) -> Tensor:
    weight = _weight(layer)
    return weight.detach() * weight.grad if weight.grad is not None else torch.zeros_like(weight)


def _weighted(members: Sequence[Member]) -> list[Member]:
    """The convolutions and linear layers that read a group's channels; those that give them where no such layer reads them."""
    products = [m for m in members if isinstance(m.module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))]
    return [m for m in products if not m.gives] or products


def _by_channel(member: Member, product: Tensor) -> Tensor:
    """A weight's tensor summed for each channel of that side of its layer that the member is about."""
    layer = member.module
    transposed = isinstance(layer, TRANSPOSED)
    if member.gives is not transposed:  # the first axis of the weight: outputs, of a transposed convolution inputs
        return product.flatten(1).sum(1)
    parts = layer.groups if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) else 1
    return product.reshape(parts, product.shape[0] // parts, product.shape[1], -1).sum((1, 3)).flatten()


def _spread(group: Group, values: Sequence[tuple[Member, Tensor]]) -> Tensor:
    """Values of several layers' channels, added up for each channel of the group."""
    total = torch.zeros(group.channels)
    for member, value in values:
        total.index_add_(0, member.roots, value.detach().float().cpu()[member.channels])
    return total


def _batch_norm_scale(_: nn.Module, coupling: Coupling, groups: Sequence[Group], __: "BuildContext") -> list[Tensor]:
    """The scales of batch norms, averaged over the coupled ones (Liu et al. 2017, "Network Slimming").

    Groups without a batch norm are ranked by their l2 norm, brought to the mean of all scales.
    """
    norms = [normed(coupling, group) for group in groups]
    if not any(norms):
        raise MethodError("no batch norm lies over channels that can be removed; choose another importance")
    found = [
        _spread(group, [(m, _weight(m.module).abs()) for m in members]) / len(members) if members else None
        for group, members in zip(groups, norms, strict=True)
    ]
    mean = float(torch.cat([score for score in found if score is not None]).mean())
    magnitudes = [coupling.magnitude(group, 2) if score is None else score for group, score in zip(groups, found, strict=True)]
    return [
        magnitude * (mean / magnitude.mean().clamp(min=1e-12)) if score is None else score
        for magnitude, score in zip(magnitudes, found, strict=True)
    ]


def _geometric_median(_: nn.Module, coupling: Coupling, groups: Sequence[Group], __: "BuildContext") -> list[Tensor]:
    """The distance of a filter to all others of its layer: one near the others' geometric median can be replaced by them.

    He et al. 2019, "Filter Pruning via Geometric Median" (FPGM); averaged over the layers that give the channels.
    """
    found = []
    for group in groups:
        values = []
        for member in coupling.members(group):
            layer = member.module
            if member.gives and isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)):
                weight = _weight(layer).detach().float()
                if isinstance(layer, TRANSPOSED):
                    weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
                distances = torch.cdist(weight.flatten(1)[None], weight.flatten(1)[None])[0].sum(1)
                values.append((member, distances / distances.mean().clamp(min=1e-12)))
        found.append(_spread(group, values))
    return found


def _activation_entropy(model: nn.Module, coupling: Coupling, groups: Sequence[Group], context: "BuildContext") -> list[Tensor]:
    """The entropy of a channel's mean activation over the examples: one that is always alike tells nothing.

    Luo and Wu 2017, "An Entropy-based Pruning Method for CNN Compression". It is read where the channel is read, after its
    activation function, and averaged over the layers that read it. In nats.
    """
    readers = [_weighted(coupling.members(group)) for group in groups]
    means: dict[nn.Module, list[Tensor]] = {}
    layers = {m.module for found in readers for m in found if not m.gives}
    handles = [layer.register_forward_pre_hook(_recorder(layer, means)) for layer in sorted(layers, key=id)]
    try:
        with torch.no_grad():
            for inputs, _ in context.samples(EXAMPLES, 64):
                context.forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    entropies = {layer: _entropy(torch.cat(found)) for layer, found in means.items()}
    return [
        _spread(group, [(m, entropies[m.module]) for m in found if m.module in entropies])
        for group, found in zip(groups, readers, strict=True)
    ]


def _recorder(layer: nn.Module, means: dict[nn.Module, list[Tensor]]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    last = isinstance(layer, nn.Linear)

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        value = inputs[0].detach().float()
        axis = value.ndim - 1 if last else 1
        others = [k for k in range(1, value.ndim) if k != axis]
        means.setdefault(layer, []).append(value.mean(others) if others else value)

    return hook


def _entropy(values: Tensor) -> Tensor:
    """For each column the entropy of its values' histogram, between its own least and greatest value.

    Args:
        values: Shape (examples, channels).
    """
    low, high = values.amin(0), values.amax(0)
    width = (high - low).clamp(min=1e-12)
    places = ((values - low) / width * BINS).long().clamp(max=BINS - 1)
    shares = nn.functional.one_hot(places, BINS).float().mean(0)
    return -(shares * shares.clamp(min=1e-12).log()).sum(-1)


def _random(_: nn.Module, __: Coupling, groups: Sequence[Group], context: "BuildContext") -> list[Tensor]:
    """By lot, the control that every other measure has to beat (Mittal et al. 2018, "Recovering from Random Pruning")."""
    seeds = [zlib.crc32(f"{context.seed} {group.root}".encode()) for group in groups]
    return [torch.rand(g.channels, generator=torch.Generator().manual_seed(s)) for g, s in zip(groups, seeds, strict=True)]


MEASURES: Mapping[str, Measure] = {
    "taylor": _taylor,
    "l2": _magnitude(2),
    "l1": _magnitude(1),
    "batch-norm-scale": _batch_norm_scale,
    "geometric-median": _geometric_median,
    "activation-entropy": _activation_entropy,
    "random": _random,
}
ABSOLUTE = frozenset({"taylor", "batch-norm-scale"})
"""Measures whose scores of different layers are in one unit."""
