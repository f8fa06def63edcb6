"""Inner chains: two layers and what stands between them, where nothing else reads the channels that they pass on.

An inverted residual (1x1 - depthwise - 1x1; Sandler et al. 2018), two convolutions in a row and a transformer's feed-forward
(Vaswani et al. 2017) are such chains: their inner width is theirs alone and can be changed. Loads torch: imported lazily.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from orchestrator.plugin.networks import run, same
from orchestrator_morphology.dataflow import Call, Dataflow, is_product, private_layers, recorded
from orchestrator_morphology.gates import Gate, gate_of
from orchestrator_morphology.passing import flattened, passes

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

_Conv = nn.modules.conv._ConvNd
_Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class InnerChain:
    """A layer that makes channels, the layers that take them one by one, and the only layer that reads them at the end.

    Attributes:
        producer: A dense convolution or a linear layer.
        followers: Batch norms, depthwise convolutions and PReLUs between the two, in order.
        consumer: A dense convolution or a linear layer.
        channels: The inner width.
        spread: Inputs of the consumer for each channel: above 1 where a feature map is flattened into a linear layer.
        gates: Squeeze-and-excitation on the way.
    """

    producer: str
    followers: tuple[str, ...]
    consumer: str
    channels: int
    spread: int = 1
    gates: tuple[Gate, ...] = ()


def find(model: nn.Module, context: "BuildContext") -> list[InnerChain]:
    """The inner chains of a network in its order; each was tried: narrowing it equals silencing the channels that go.

    Raises:
        MethodError: the network cannot be recorded.
    """
    flow = recorded(model, context)
    private = private_layers(model, flow)
    chains = [chain for name in private if (chain := _from(model, name, flow, private)) is not None]
    if not chains or _sound(model, chains, context):
        return chains
    return [chain for chain in chains if _sound(model, [chain], context)]


def select(model: nn.Module, chain: InnerChain, channels: Sequence[int], shares: Sequence[float] | None = None) -> None:
    """Give a chain the inner channels that these ones are copies of, in place.

    Args:
        channels: For each new channel the present one whose weights it gets.
        shares: What each new channel's weights in the consumer are multiplied by; None: 1.
    """
    device = next(model.get_submodule(chain.producer).parameters()).device
    index = torch.tensor(list(channels), device=device)
    for name in (chain.producer, *chain.followers, *(gate.maker for gate in chain.gates)):
        layer = model.get_submodule(name)
        held: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for tensors in held:
            for key, tensor in tensors.items():
                if tensor is not None and tensor.ndim and len(tensor) == chain.channels:
                    tensors[key] = _like(tensor, tensor.detach().index_select(0, index))
        for attribute in ("out_features", "out_channels", "num_features"):
            if hasattr(layer, attribute):
                setattr(layer, attribute, len(channels))
        if isinstance(layer, nn.PReLU):
            layer.num_parameters = len(channels)
        elif isinstance(layer, _Conv) and name in chain.followers:
            layer.in_channels = layer.groups = len(channels)
    for name, spread in ((chain.consumer, chain.spread), *((gate.reader, 1) for gate in chain.gates)):
        reader: Any = model.get_submodule(name)
        weight = reader.weight.detach()
        parts = weight.reshape(len(weight), -1, spread, *weight.shape[2:]).index_select(1, index)
        if shares is not None:
            scale = torch.tensor(list(shares), dtype=weight.dtype, device=device)
            parts = parts * scale.view(1, -1, *[1] * (parts.ndim - 2))
        reader.weight = _like(reader.weight, parts.reshape(len(weight), -1, *weight.shape[2:]))
        setattr(reader, "in_features" if isinstance(reader, nn.Linear) else "in_channels", len(channels) * spread)


def importance(model: nn.Module, chain: InnerChain) -> Tensor:
    """The magnitude of each inner channel (float64, shape (channels,)): the norms of all weights on its way, multiplied.

    A batch norm counts with what it multiplies by. Magnitude is as in Li et al. 2017, "Pruning Filters for Efficient ConvNets".
    """
    score = _rows(model.get_submodule(chain.producer))
    for name in chain.followers:
        layer: Any = model.get_submodule(name)
        if isinstance(layer, _Conv):
            score = score * _rows(layer)
        elif isinstance(layer, _Norm):
            if layer.weight is not None:
                score = score * layer.weight.detach().double().abs()
            if layer.running_var is not None:
                score = score / (layer.running_var.double() + layer.eps).sqrt()
    weight: Any = model.get_submodule(chain.consumer).weight
    columns = weight.detach().double().reshape(len(weight), chain.channels, -1)
    norms: Tensor = columns.square().sum((0, 2)).sqrt()
    return score * norms


def strongest(model: nn.Module, chain: InnerChain, count: int) -> list[int]:
    """The `count` inner channels of greatest magnitude, in their order."""
    order = torch.argsort(importance(model, chain), descending=True, stable=True)
    return sorted(order[:count].tolist())


def _rows(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    norms: Tensor = weight.detach().double().flatten(1).square().sum(1).sqrt()
    return norms


def _like(old: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new.contiguous(), requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _from(model: nn.Module, name: str, flow: Dataflow, private: dict[str, Call]) -> InnerChain | None:
    """The chain that begins at a layer, if one does."""
    producer: Any = model.get_submodule(name)
    if not is_product(producer) or (isinstance(producer, _Conv) and producer.groups > 1):
        return None
    channels, spread, call = len(producer.weight), 1, private[name]
    followers: list[str] = []
    axis = 1 if isinstance(producer, _Conv) else -1
    gates: list[Gate] = []
    while True:
        value = call.outputs[0]
        if len(call.outputs) != 1 or value in flow.ends:
            return None
        readers = flow.readers(value)
        if len(readers) == 2 and axis == 1 and spread == 1:
            found = gate_of(model, flow, value, channels, private)
            if found is None:
                return None
            gates.append(found[0])
            call = found[1]
            continue
        if len(readers) != 1 or len(readers[0].inputs) != 1:
            return None
        call = readers[0]
        layer: Any = model.get_submodule(call.layer) if call.layer is not None else None
        if layer is not None and is_product(layer):
            if _reads(layer, call, channels * spread, axis) and call.layer in private:
                return InnerChain(
                    producer=name,
                    followers=tuple(followers),
                    consumer=str(call.layer),
                    channels=channels,
                    spread=spread,
                    gates=tuple(gates),
                )
            if spread > 1 or axis != 1 or not _is_depthwise(layer, channels) or call.layer not in private:
                return None
            followers.append(str(call.layer))
        elif layer is not None and _is_channelwise(layer, call, channels, axis):
            if spread > 1 or call.layer not in private:
                return None
            followers.append(str(call.layer))
        elif not passes(layer, call, axis):
            flat = flattened(layer, call, channels, axis)
            if not flat or spread > 1:
                return None
            spread = flat


def _reads(layer: Any, call: Call, inputs: int, axis: int) -> bool:
    given = call.given
    if given is None or (isinstance(layer, _Conv) and (layer.groups > 1 or axis != 1)):
        return False
    width = layer.in_channels if isinstance(layer, _Conv) else layer.in_features
    last = isinstance(layer, _Conv) or axis == -1 or given.ndim == 2
    return bool(width == inputs and last)


def _is_depthwise(layer: Any, channels: int) -> bool:
    return isinstance(layer, _Conv) and layer.groups == layer.in_channels == layer.out_channels == channels


def _is_channelwise(layer: Any, call: Call, channels: int, axis: int) -> bool:
    """Whether a layer has a parameter for each channel."""
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters == channels and (axis == 1 or (call.given is not None and call.given.ndim == 2))
    if not isinstance(layer, _Norm) or layer.num_features != channels:
        return False
    return axis == 1 or (call.given is not None and call.given.ndim == 2)


def _sound(model: nn.Module, chains: Sequence[InnerChain], context: "BuildContext") -> bool:
    """Whether keeping every second channel of these chains equals silencing the others where they are read."""
    stay = {chain: list(range(0, chain.channels, 2)) for chain in chains}
    handles = []
    try:
        for chain, kept in stay.items():
            for name, spread in ((chain.consumer, chain.spread), *((gate.reader, 1) for gate in chain.gates)):
                reader = model.get_submodule(name)
                gone = [c * spread + k for c in sorted({*range(chain.channels)} - {*kept}) for k in range(spread)]
                handles.append(reader.register_forward_pre_hook(_mute(gone, 1 if isinstance(reader, _Conv) else -1)))
        silenced = run(model, context.forward, context.example)
        for handle in handles:
            handle.remove()
        twin = copy.deepcopy(model)
        for chain, kept in stay.items():
            select(twin, chain, kept)
        return same(silenced, run(twin, context.forward, context.example))
    except Exception:  # the network's own forward on a width that it does not expect: that is the answer
        return False
    finally:
        for handle in handles:
            handle.remove()


def _mute(gone: Sequence[int], axis: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A forward pre-hook that zeroes those channels of the first input."""

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].index_fill(axis, torch.tensor(gone, device=inputs[0].device), 0), *inputs[1:])

    return hook
