"""Groups of coupled channels of a torch network (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning").

Imports torch and torch-pruning; plugins import it on use.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from torch import Tensor, nn

from orchestrator.errors import MethodError, one_line
from orchestrator.plugin.networks import CONVOLUTION, Forward, Inputs, run, same, tensors

if TYPE_CHECKING:
    from orchestrator.plugin.method import BuildContext

Removal = Mapping[str, Sequence[int]]
"""`{root layer of a group: channels to remove}`."""

# Norms over channels and attention heads couple the channels of a whole layer, so that the removal of some is not local.
BINDING = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelGroup:
    """Channels of several layers that can only be removed together, named by the narrowest layer that produces them.

    Attributes:
        root: Name of that layer (a convolution or a linear layer).
        channels: Its number of output channels.
        parts: Groups of the widest grouped convolution among the layers; each of them loses the same positions.
        inner: True if no addition couples the channels to others, as a residual stream does from block to block.
    """

    root: str
    channels: int
    parts: int
    inner: bool = True

    @property
    def units(self) -> int:
        """Positions in a part: the number of channels to choose among."""
        return self.channels // self.parts

    def expand(self, positions: Sequence[int]) -> list[int]:
        """Return the channels at those positions of every part."""
        return sorted(part * self.units + position for part in range(self.parts) for position in positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMember:
    """A layer of a group.

    Attributes:
        name: Name of the layer in the network.
        module: The layer.
        outputs: True if its output channels are in the group (a producer, a norm, a depthwise convolution), False if its
            input channels are.
        channels: Its channels in the group, int64.
        roots: The channel of the group's root that each of them is coupled to, int64 of the same length.
    """

    name: str
    module: nn.Module
    outputs: bool
    channels: Tensor
    roots: Tensor


class ChannelGraph:
    """Dependency graph of the channels of one network (see `channel_graph`).

    Args:
        model: Traced in place; its parameters must require gradients.
        forward: Calls the network.
        inputs: A small batch.
    """

    def __init__(self, model: nn.Module, forward: Forward, inputs: Inputs) -> None:
        self._model, self._forward, self._inputs = model, forward, inputs
        self._names = {module: name for name, module in model.named_modules()}
        self._modules = dict(model.named_modules())
        self._ends: set[Any] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of each parameter and operator without a rule
            self._graph = torch_pruning.DependencyGraph().build_dependency(model, inputs, forward_fn=self._trace, verbose=False)
        self._align_padding()

    def _trace(self, model: nn.Module, inputs: Inputs) -> list[Tensor]:
        outputs = [t for t in tensors(self._forward(model, inputs)) if t.grad_fn is not None]
        self._ends = {t.grad_fn for t in outputs}
        return outputs

    def _align_padding(self) -> None:
        """Shift channel indices behind zero-padding of channels (option A shortcuts, He et al. 2015)."""
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

    def groups(self) -> list[ChannelGroup]:
        """Return all groups except those that reach an output or a binding layer, in the network's order."""
        groups: dict[str, ChannelGroup] = {}
        position = {name: index for index, name in enumerate(self._modules)}
        roots = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        for group in self._graph.get_all_groups(root_module_types=roots):
            nodes = [dependency.target for dependency, _ in group]
            bound = any(isinstance(node.module, (*BINDING, torch_pruning.ops._OutputOp)) for node in nodes)
            if bound or any(d.target.grad_fn in self._ends and self._is_output(d) for d, _ in group):
                continue
            layers = [d.target.module for d, _ in group if self._is_output(d) and isinstance(d.target.module, roots)]
            root = min(layers, key=lambda layer: (self._width(layer), position[self._names[layer]]))
            parts = max((_parts(node.module) for node in nodes), default=1)
            if self._width(root) // parts >= 2 and self._width(root) % parts == 0:
                name, inner = self._names[root], not any(map(_is_addition, nodes))
                groups[name] = ChannelGroup(root=name, channels=self._width(root), parts=parts, inner=inner)
        return [groups[name] for name in sorted(groups, key=position.__getitem__)]

    def members(self, group: ChannelGroup) -> list[GroupMember]:
        """Return the layers of a group."""
        members = []
        items = self._items(group.root, range(group.channels))
        for index, (dependency, channels) in enumerate(items):
            layer, roots = dependency.target.module, items[index].root_idxs
            outputs, inputs = self._is_output(dependency), self._is_input(dependency)
            if layer in self._names and (outputs or inputs) and None not in roots:
                own, coupled, name = torch.tensor(channels), torch.tensor(roots), self._names[layer]
                members.append(GroupMember(name=name, module=layer, outputs=outputs, channels=own, roots=coupled))
        return members

    def score(self, group: ChannelGroup, importance: Callable[[Any], Tensor | None]) -> Tensor:
        """Return the importance of each channel (float32, shape (channels,)) by one of torch-pruning's importances."""
        scores = importance(self._items(group.root, range(group.channels)))
        return torch.ones(group.channels) if scores is None else scores.float()

    def silence(self, removal: Removal, inputs: Inputs | None = None) -> list[Tensor]:
        """Return the outputs when every layer that reads the channels of `removal` reads zeros there.

        A correct removal of these channels gives the same outputs.

        Args:
            removal: Channels to silence.
            inputs: A batch other than that of the trace.
        """
        with ExitStack() as hooks:
            for root, indices in removal.items():
                for dependency, channels in self._items(root, indices):
                    layer = dependency.target.module
                    if self._is_input(dependency) and isinstance(layer, nn.Module):
                        hooks.enter_context(layer.register_forward_pre_hook(_zero_inputs(layer, channels)))
            return run(self._model, self._forward, self._inputs if inputs is None else inputs)

    def prune(self, removal: Removal) -> None:
        """Remove the channels of `removal`, with everything that is coupled to them, in place."""
        for root, indices in removal.items():
            self._items(root, indices).prune(record_history=False)

    def _items(self, root: str, indices: Sequence[int]) -> Any:
        layer = self._modules[root]
        prune = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, prune, list(indices))

    def _is_output(self, dependency: Any) -> bool:
        return bool(self._graph.is_out_channel_pruning_fn(dependency.handler))

    def _is_input(self, dependency: Any) -> bool:
        return bool(self._graph.is_in_channel_pruning_fn(dependency.handler)) and not self._is_output(dependency)

    def _width(self, layer: nn.Module) -> int:
        return int(self._graph.get_out_channels(layer))


def _parts(layer: Any) -> int:
    grouped = isinstance(layer, CONVOLUTION) and layer.groups not in (1, layer.out_channels)
    return int(layer.groups) if grouped else 1


def _is_addition(node: Any) -> bool:
    """Return True if a node of the graph adds two tensors (a scalar, as in a hard sigmoid, is no second one)."""
    operator = node.grad_fn.name() if node.grad_fn is not None else ""
    return operator.startswith(("AddBackward", "SubBackward")) and len(node.inputs) > 1


class _Shift:
    """Mapping of channel indices across zero-padding in front of the channels."""

    def __init__(self, before: int, channels: int) -> None:
        self._before, self._channels = before, channels

    def forth(self, indices: Sequence[Any]) -> list[Any]:
        return [i._replace(idx=i.idx + self._before) for i in indices]

    def back(self, indices: Sequence[Any]) -> list[Any]:
        return [i._replace(idx=i.idx - self._before) for i in indices if 0 <= i.idx - self._before < self._channels]


def _zero_inputs(layer: nn.Module, channels: Sequence[int]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Return a forward pre-hook that sets those channels of the first input to zero."""
    axis = 1 if isinstance(layer, CONVOLUTION) else -1

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].index_fill(axis, torch.tensor(channels, device=inputs[0].device), 0), *inputs[1:])

    return hook


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Let every parameter require a gradient inside, as before afterwards."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    model.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)


@contextmanager
def channel_graph(model: nn.Module, context: "BuildContext") -> Iterator[ChannelGraph]:
    """Trace a network on the task's example; inside, its parameters require gradients."""
    with differentiable(model):
        yield ChannelGraph(model, context.forward, context.example)


def removable_groups(model: nn.Module, context: "BuildContext", *, inner: bool = False) -> list[ChannelGroup]:
    """Return the groups whose channels can be removed.

    Each removal is tried on a copy of the network: without every second channel of the group, its outputs must be those of the
    network with these channels silenced.

    Args:
        model: Network; it does not change.
        context: Context of the build.
        inner: True for inner groups only.

    Raises:
        MethodError: The network cannot be traced.
    """
    try:
        with channel_graph(copy.deepcopy(model), context) as graph:
            groups = [group for group in graph.groups() if group.inner or not inner]
    except Exception as error:  # anything that a user's network or torch-pruning raises
        raise MethodError(f"the channels of this network cannot be traced: {one_line(error)}") from error
    if groups and _is_removable(model, groups, context):
        return groups
    return [group for group in groups if _is_removable(model, [group], context)]


def _is_removable(model: nn.Module, groups: Sequence[ChannelGroup], context: "BuildContext") -> bool:
    # Every second channel, because no block structure (heads, flattened maps, shuffles) survives that by chance.
    removal = {group.root: group.expand(range(0, group.units - 1, 2)) for group in groups}
    model = copy.deepcopy(model)
    try:
        with channel_graph(model, context) as graph:
            silenced = graph.silence(removal)
            graph.prune(removal)
        return same(silenced, run(model, context.forward, context.example))
    except Exception:  # the network's own forward fails on other widths
        return False


def nearest_width(channels: int, wanted: float, multiple: int) -> int:
    """Return the multiple (at least one) nearest to `wanted`, or the present number of channels if that is nearer.

    Args:
        channels: Present width.
        wanted: Requested width, not rounded.
        multiple: Number of channels that the target's kernels process together.
    """
    if channels <= multiple:
        return channels
    lower = max(multiple, math.floor(wanted / multiple) * multiple)
    upper = min(channels, lower + multiple)
    return lower if wanted - lower < upper - wanted else upper
