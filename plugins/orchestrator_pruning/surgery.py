"""Removal of channels from a network, tried before it is trusted.

What torch is needed for is imported inside: methods are declared without it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.plugin import BuildContext, MethodError, Target

if TYPE_CHECKING:
    from torch import nn

    from orchestrator_pruning.coupled import Coupling, Group
    from orchestrator_pruning.plan import Cost


def channel_multiple(target: Target) -> int:
    """The multiple of channels that the target's float kernels use; that of int8 where it names no other."""
    multiple = target.channel_multiple("float32")
    return multiple if multiple > 1 else target.channel_multiple("int8")


def sound_groups(model: "nn.Module", context: BuildContext) -> list["Group"]:
    """The groups whose channels can be removed: every second one is, on a copy, and the outputs must be as when silenced.

    Raises:
        MethodError: the network cannot be traced.
    """
    try:
        groups = _groups(model, context)
    except Exception as error:  # whatever a user's network or torch-pruning raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(f"pruning cannot trace this network: {reason:.200}") from error
    if groups and _sound(model, groups, context):
        return groups
    return [group for group in groups if _sound(model, [group], context)]


def cut(
    model: "nn.Module", groups: "Sequence[Group]", importance: str, stay: Mapping[str, int], context: BuildContext
) -> "list[Group]":
    """Remove the least important channels of each group, in place, so that as many stay as planned.

    Args:
        stay: `{root: channels that stay}`; groups that are not named stay whole.

    Returns:
        The groups as they are afterwards.

    Raises:
        MethodError: the pruned network is not the network with those channels silenced.
    """
    from orchestrator.plugin.networks import run, same
    from orchestrator_pruning.coupled import Coupling, differentiable
    from orchestrator_pruning.importance import scores
    from orchestrator_pruning.plan import removal

    with differentiable(model):
        coupling = Coupling(model, context.forward, context.example)
        gone = removal(groups, scores(importance, model, coupling, groups, context), stay)
        silenced = coupling.silence(gone)
        coupling.prune(gone)
    if not same(silenced, run(model, context.forward, context.example)):
        raise MethodError("the pruned network does not compute what it should; prune less of it")
    return [replace(group, channels=stay.get(group.root, group.channels)) for group in groups]


def cost_of(model: "nn.Module", groups: "Sequence[Group]", context: BuildContext) -> "Cost":
    """What the network computes for one example when channels of these groups are gone."""
    from orchestrator.plugin.networks import macs
    from orchestrator_pruning.coupled import Coupling, differentiable
    from orchestrator_pruning.plan import Cost

    with differentiable(model):
        coupling = Coupling(model, context.forward, context.example)
        return Cost(macs(model, context.forward, context.example), coupling, groups)


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

    from orchestrator.plugin.networks import run, same

    # Every second one, because no block structure (heads, flattened maps, shuffles) survives that by chance.
    removal = {group.root: group.expand(range(0, group.units - 1, 2)) for group in groups}
    with torch.enable_grad():
        twin, coupling = _copied(model, context)
        try:
            silenced = coupling.silence(removal)
            coupling.prune(removal)
            return same(silenced, run(twin, context.forward, context.example))
        except Exception:  # the network's own forward on shapes that no longer fit: that is the answer
            return False
