"""Structured channel pruning over a dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning")."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_pruning.coupled import Coupling, Group, Removal

LEAST_SHARE = 0.1
"""No group of layers keeps less than this share of its channels when all are ranked together: a layer must not vanish."""


class ChannelPruning(TorchMethod):
    """Removes the channels of least magnitude, with everything that depends on them; the result is a smaller dense network.

    Only groups of channels whose removal equals silencing them are touched: that is tried on the network itself, so residual
    streams of convolutional networks and the inner layers of transformers are pruned, and what goes through attention
    heads, layer norm or group norm is not. Layers that produce the outputs stay whole.
    """

    name = "channel-pruning"
    version = 1
    family = "pruning"
    summary = "Removes whole channels of least magnitude along a dependency graph (Fang et al. 2023, DepGraph)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="ratio",
            help="share of the channels that is removed, before rounding to the target's channel multiple",
            low=0.1,
            high=0.7,
            step=0.05,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        Choice(name="importance", help="norm of the weights that ranks the channels", choices=("l2", "l1")),
        Choice(
            name="scope",
            help="the same share from every layer, or the least important channels of the whole network",
            choices=("uniform", "global"),
        ),
    )
    after = frozenset({"morphology"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_pruning.coupled import kept

        try:
            groups = sound_groups(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        multiple = channel_multiple(context)
        ratio = next(p for p in parameters if isinstance(p, Number) and p.name == "ratio")
        for index in range(ratio.count()):
            low = round(ratio.low + index * ratio.step, 6)
            if any(kept(g.channels, g.channels * (1 - low), step(g, multiple)) < g.channels for g in groups):
                scopes = ("uniform", "global") if len(groups) > 1 else ("uniform",)
                return narrowed(parameters, ratio={"low": low}, scope={"choices": scopes})
        raise Refused(
            f"no layer can lose channels: of {len(groups)} prunable groups none is wider than the target's multiple of "
            f"{multiple} channels, or attention heads or norms bind their channels"
        )

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_pruning.coupled import Coupling, differentiable, same, tensors

        groups = sound_groups(model, context)
        with differentiable(model):
            coupling = Coupling(model, context.forward, context.example)
            norm = {"l1": 1, "l2": 2}[str(parameters["importance"])]
            scores = [coupling.importance(group, norm) for group in groups]
            removal = plan(groups, scores, float(parameters["ratio"]), str(parameters["scope"]), channel_multiple(context))
            if not removal:
                raise MethodError(
                    f"{self.name}: ratio {parameters['ratio']} removes no channel of this network in multiples of "
                    f"{channel_multiple(context)}; choose a higher ratio"
                )
            silenced = coupling.silence(removal)
            coupling.prune(removal)
            if not same(silenced, [t.detach() for t in tensors(context.forward(model, context.example))]):
                raise MethodError(f"{self.name}: the pruned network does not compute what it should; prune less of it")
        return model


def channel_multiple(context: BuildContext) -> int:
    """The multiple of channels that the target's float kernels use; that of int8 where it names no other."""
    multiple = context.target.channel_multiple("float32")
    return multiple if multiple > 1 else context.target.channel_multiple("int8")


def step(group: "Group", multiple: int) -> int:
    """Channels come and go in this number: a multiple of the target's and of the grouped convolutions'."""
    return math.lcm(multiple, group.parts)


def sound_groups(model: "nn.Module", context: BuildContext) -> list["Group"]:
    """The groups whose channels can be removed: every second one is, on a copy, and the outputs must be as when silenced.

    Raises:
        MethodError: the network cannot be traced.
    """
    try:
        groups = _groups(model, context)
    except Exception as error:  # whatever a user's network or torch-pruning raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(f"channel-pruning cannot trace this network: {reason:.200}") from error
    if groups and _sound(model, groups, context):
        return groups
    return [group for group in groups if _sound(model, [group], context)]


def _copied(model: "nn.Module", context: BuildContext) -> "tuple[nn.Module, Coupling]":
    from orchestrator_pruning.coupled import Coupling

    twin = copy.deepcopy(model).requires_grad_(True)
    return twin, Coupling(twin, context.forward, context.example)


def _groups(model: "nn.Module", context: BuildContext) -> list["Group"]:
    import torch

    with torch.enable_grad():
        return _copied(model, context)[1].groups()


def _sound(model: "nn.Module", groups: "Sequence[Group]", context: BuildContext) -> bool:
    """Whether removing every second channel of these groups equals silencing them."""
    import torch

    from orchestrator_pruning.coupled import same, tensors

    # Every second one, because no block structure (heads, flattened maps, shuffles) survives that by chance.
    removal = {group.root: group.expand(range(0, group.units - 1, 2)) for group in groups}
    with torch.enable_grad():
        twin, coupling = _copied(model, context)
        try:
            silenced = coupling.silence(removal)
            coupling.prune(removal)
            return same(silenced, [t.detach() for t in tensors(context.forward(twin, context.example))])
        except Exception:  # the network's own forward on shapes that no longer fit: that is the answer
            return False


def plan(groups: "Sequence[Group]", scores: "Sequence[Tensor]", ratio: float, scope: str, multiple: int) -> "Removal":
    """The channels of each root that go: those of least importance.

    Args:
        scores: Importance of each position of each group, of mean 1 in a group.
        ratio: Share of the channels that goes.
        scope: "uniform": of every group; "global": of all groups ranked together.
    """
    import torch

    from orchestrator_pruning.coupled import kept

    removal: dict[str, list[int]] = {}
    if scope == "global" and groups:
        ranked = torch.cat([s.repeat(g.parts) for g, s in zip(groups, scores, strict=True)]).sort().values
        threshold = float(ranked[min(int(ratio * len(ranked)), len(ranked) - 1)])
    for group, score in zip(groups, scores, strict=True):
        wanted = group.channels * (1 - ratio)
        if scope == "global":
            wanted = max(int((score >= threshold).sum()) * group.parts, LEAST_SHARE * group.channels)
        stay = kept(group.channels, wanted, step(group, multiple)) // group.parts
        if stay < group.units:
            order = torch.argsort(score, stable=True)
            removal[group.root] = group.expand(sorted(order[: group.units - stay].tolist()))
    return removal
