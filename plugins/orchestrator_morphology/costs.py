"""What a network costs on a target, estimated: it orders morphs and judges nothing else. Loads torch: imported lazily."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from orchestrator.plugin.networks import PRODUCTS, macs

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext


def cost(model: nn.Module, context: "BuildContext") -> float:
    """Milliseconds of one inference where the target's profile can estimate them for its runtime, else multiply-accumulates.

    The milliseconds are those of the arithmetic (the profile's fewest threads, float32 or what it has instead; depthwise
    convolutions at their own rate) and a fixed one for each convolution and linear layer; memory traffic is left out. Recurrent
    layers and attention's products between activations are not counted.
    """
    counts = macs(model, context.forward, context.example)
    prices = _prices(context)
    if prices is None:
        return float(sum(counts.values()))
    return (
        sum(
            count * prices["depthwise" if _is_depthwise(model.get_submodule(name)) else "pointwise"] + prices["operator"]
            for name, count in counts.items()
        )
        / 1e6
    )


def _prices(context: "BuildContext") -> Mapping[str, float] | None:
    """Nanoseconds of the features that a layer's multiply-accumulates are priced by, or None where the profile has none."""
    target = context.target
    tables = [m for m in target.profile.latency_models if m.runtime == target.runtime and m.number_format != "int8"]
    tables.sort(key=lambda m: (m.number_format != "float32", m.threads))
    return next((m.nanoseconds for m in tables if {"depthwise", "pointwise", "operator"} <= m.nanoseconds.keys()), None)


def counted_share(model: nn.Module) -> float:
    """The share of a network's parameters that stands in layers whose cost is counted; embeddings, which cost nothing, aside."""
    counted = {id(p) for m in model.modules() if isinstance(m, PRODUCTS) for p in m.parameters(recurse=False)}
    free = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for p in m.parameters(recurse=False)}
    sizes = {id(p): p.numel() for p in model.parameters() if id(p) not in free}
    return sum(size for key, size in sizes.items() if key in counted) / max(1, sum(sizes.values()))


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.in_channels > 1
