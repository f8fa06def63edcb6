"""Estimated cost of a network on a target, which only orders morphs. Imports torch; imported on use."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from orchestrator.plugin.networks import CONVOLUTION, PRODUCTS, macs

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext


def cost(model: nn.Module, context: "BuildContext") -> float:
    """Return the milliseconds of one inference if the target's profile can estimate them, else the multiply-accumulates.

    The milliseconds are those of the arithmetic (at the profile's fewest threads, in float32 if it has rates of it; depthwise
    convolutions at their own rate) and a constant for each convolution and linear layer; memory traffic is not included.
    Recurrent layers and attention's products between activations are not counted.
    """
    counts = macs(model, context.forward, context.example)
    prices = _prices(context)
    if prices is None:
        return float(sum(counts.values()))
    kinds = {name: "depthwise" if _is_depthwise(model.get_submodule(name)) else "pointwise" for name in counts}
    return sum(count * prices[kinds[name]] + prices["operator"] for name, count in counts.items()) / 1e6


def _prices(context: "BuildContext") -> Mapping[str, float] | None:
    """Return the profile's nanoseconds for each feature of a layer; None if it has no such latency model."""
    target = context.target
    tables = [m for m in target.profile.latency_models if m.runtime == target.runtime and m.number_format != "int8"]
    tables.sort(key=lambda m: (m.number_format != "float32", m.threads))
    return next((m.nanoseconds for m in tables if {"depthwise", "pointwise", "operator"} <= m.nanoseconds.keys()), None)


def counted_share(model: nn.Module) -> float:
    """Return the share of a network's parameters in layers whose cost is counted; embeddings cost nothing."""
    counted = {id(p) for m in model.modules() if isinstance(m, PRODUCTS) for p in m.parameters(recurse=False)}
    free = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for p in m.parameters(recurse=False)}
    sizes = {id(p): p.numel() for p in model.parameters() if id(p) not in free}
    return sum(size for key, size in sizes.items() if key in counted) / max(1, sum(sizes.values()))


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, CONVOLUTION) and layer.groups == layer.in_channels > 1
