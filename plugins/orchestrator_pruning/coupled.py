"""Channels that must go together, found by a dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning").

Imported only where a network is at hand: it loads torch and torch-pruning.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from orchestrator.plugin.networks import Forward, Inputs, tensors

Removal = Mapping[str, Sequence[int]]

# Norms over channels and attention heads bind channels across the whole layer, so that removing some is not local.
BINDING = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Layers whose channels can only be removed together, named by the narrowest layer that produces them.

    Attributes:
        root: The name of that layer (a convolution or a linear layer).
        channels: Its output channels.
        parts: Groups of the widest grouped convolution among them; every part loses the same positions.
        inner: Whether its channels are added to no others: those of a residual stream are, from block to block.
    """

    root: str
    channels: int
    parts: int
    inner: bool = True

    @property
    def units(self) -> int:
        """Positions in a part: what can be chosen among."""
        return self.channels // self.parts

    def expand(self, positions: Sequence[int]) -> list[int]:
        """The channels at those positions of every part."""
        return sorted(part * self.units + position for part in range(self.parts) for position in positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One layer of a group.

    Attributes:
        name: Of the layer in the network.
        module: The layer.
        gives: Whether it loses output channels (a producer, a norm, a depthwise convolution); else it loses inputs.
        channels: Its channels that belong to the group, int64.
        roots: The channel of the group's root that each of them goes with, int64 of the same length.
    """

    name: str
    module: nn.Module
    gives: bool
    channels: Tensor
    roots: Tensor


class Coupling:
    """The dependency graph of one network.

    Args:
        model: Traced in place; its parameters must require gradients (see `differentiable`).
        forward: Calls the network.
        inputs: A small batch.
    """

    def __init__(self, model: nn.Module, forward: Forward, inputs: Mapping[str, Tensor]) -> None:
        self._model, self._forward, self._inputs = model, forward, inputs
        self._names = {module: name for name, module in model.named_modules()}
        self._modules = dict(model.named_modules())
        self._ends: set[Any] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every parameter and operator that it has no rule for
            self._graph = torch_pruning.DependencyGraph().build_dependency(model, inputs, forward_fn=self._trace, verbose=False)
        self._align_padding()

    def _trace(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = [t for t in tensors(self._forward(model, inputs)) if t.grad_fn is not None]
        self._ends = {t.grad_fn for t in outputs}
        return outputs

    def _align_padding(self) -> None:
        """Teach the graph that zero-padding of channels shifts their indices (option A shortcuts, He et al. 2015)."""
        flat = any(isinstance(module, nn.Conv1d) for module in self._modules.values())
        for node in list(self._graph.module2node.values()):
            grad = node.grad_fn
            if grad is None or "ConstantPadNd" not in grad.name():
                continue
            shape = grad._input_metadata[0].shape
            axis = len(shape) - 1 if len(shape) == 3 and not flat else 1
            place = 2 * (len(shape) - 1 - axis)  # F.pad lists (before, after) from the last axis on
            before, after = [*grad._saved_pad, *([0] * 2 * len(shape))][place : place + 2]
            if (before, after) == (0, 0):
                continue
            shift = _Shift(before, shape[axis] - before - after)
            for source in node.inputs:
                for dependency in source.dependencies:
                    if dependency.target is node:
                        dependency.index_mapping[1] = shift.forth
                for dependency in node.dependencies:
                    if dependency.target is source:
                        dependency.index_mapping[1] = shift.back

    def groups(self) -> list[Group]:
        """All groups but those that reach an output or are bound across channels, in a fixed order."""
        found: dict[str, Group] = {}
        position = {name: index for index, name in enumerate(self._modules)}
        roots = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        for group in self._graph.get_all_groups(root_module_types=roots):
            members = [dependency.target for dependency, _ in group]
            bound = any(isinstance(m.module, (*BINDING, torch_pruning.ops._OutputOp)) for m in members)
            if bound or any(d.target.grad_fn in self._ends and self._gives(d) for d, _ in group):
                continue
            layers = [d.target.module for d, _ in group if self._gives(d) and isinstance(d.target.module, roots)]
            root = min(layers, key=lambda layer: (self._width(layer), position[self._names[layer]]))
            parts = max((self._parts(d) for d, _ in group), default=1)
            if self._width(root) // parts >= 2 and self._width(root) % parts == 0:
                name = self._names[root]
                inner = not any(_adds(dependency.target) for dependency, _ in group)
                found[name] = Group(root=name, channels=self._width(root), parts=parts, inner=inner)
        return [found[name] for name in sorted(found, key=position.__getitem__)]

    def members(self, group: Group) -> list[Member]:
        """The layers of a group, with the channels that they lose when the group loses all of its own."""
        found = []
        items = self._group(group.root, range(group.channels))
        for index, (dependency, channels) in enumerate(items):
            layer, roots = dependency.target.module, items[index].root_idxs
            gives, takes = self._gives(dependency), self._takes(dependency)
            if layer in self._names and (gives or takes) and None not in roots:
                places = torch.tensor(channels), torch.tensor(roots)
                found.append(Member(name=self._names[layer], module=layer, gives=gives, channels=places[0], roots=places[1]))
        return found

    def magnitude(self, group: Group, norm: int) -> Tensor:
        """The magnitude of each channel (float32, shape (channels,)), averaged over the coupled layers.

        Args:
            norm: 1 or 2, the p of the p-norms (Li et al. 2017, "Pruning Filters for Efficient ConvNets").
        """
        measure = torch_pruning.importance.GroupMagnitudeImportance(p=norm, normalizer=None)
        scores: Tensor = measure(self._group(group.root, range(group.channels)))
        return scores.float()

    def silence(self, removal: Removal, inputs: Inputs | None = None) -> list[Tensor]:
        """The outputs when all that reads the channels of `removal` sees zeros there: what removing them should give.

        Args:
            inputs: A batch other than that of the trace.
        """
        handles = []
        try:
            for root, indices in removal.items():
                for dependency, read in self._group(root, indices):
                    layer = dependency.target.module
                    if self._takes(dependency) and isinstance(layer, nn.Module):
                        axis = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
                        handles.append(layer.register_forward_pre_hook(_mute(axis, read)))
            with torch.no_grad():
                return tensors(self._forward(self._model, self._inputs if inputs is None else inputs))
        finally:
            for handle in handles:
                handle.remove()

    def prune(self, removal: Removal) -> None:
        """Remove those output channels of those layers, and all that is coupled to them, in place."""
        for root, indices in removal.items():
            self._group(root, indices).prune(record_history=False)

    def _group(self, root: str, indices: Sequence[int]) -> Any:
        layer = self._modules[root]
        prune = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, prune, list(indices))

    def _gives(self, dependency: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(dependency.handler))

    def _takes(self, dependency: Any) -> bool:
        return bool(self._graph.is_in_channel_pruning_fn(dependency.handler)) and not self._gives(dependency)

    def _width(self, layer: nn.Module) -> int:
        return int(self._graph.get_out_channels(layer))

    def _parts(self, dependency: Any) -> int:
        layer = dependency.target.module
        grouped = isinstance(layer, nn.modules.conv._ConvNd) and layer.groups not in (1, layer.out_channels)
        return int(layer.groups) if grouped else 1


def _adds(node: Any) -> bool:
    """Whether a node of the graph adds two tensors up (a scalar, as in a hard sigmoid, is no second one)."""
    operator = node.grad_fn.name() if node.grad_fn is not None else ""
    return operator.startswith(("Add", "Sub")) and len(node.inputs) > 1


class _Shift:
    """Indices of channels before and after zero-padding in front of them."""

    def __init__(self, before: int, channels: int) -> None:
        self._before, self._channels = before, channels

    def forth(self, indices: Sequence[Any]) -> list[Any]:
        return [i._replace(idx=i.idx + self._before) for i in indices]

    def back(self, indices: Sequence[Any]) -> list[Any]:
        return [i._replace(idx=i.idx - self._before) for i in indices if 0 <= i.idx - self._before < self._channels]


def _mute(axis: int, indices: Sequence[int]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A forward pre-hook that zeroes those channels of the first input."""

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].index_fill(axis, torch.tensor(indices, device=inputs[0].device), 0), *inputs[1:])

    return hook


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Every parameter requires a gradient inside (the graph is traced by autograd), and what it did before, afterwards."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    model.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)
