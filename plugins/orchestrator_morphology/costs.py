"""What a network costs on a target, estimated: it orders morphs and judges nothing else. Loads torch: imported lazily."""

from typing import TYPE_CHECKING, Any

from torch import nn

from orchestrator.plugin.networks import PRODUCTS, macs

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext


def cost(model: nn.Module, context: "BuildContext") -> float:
    """Seconds of one inference where the target's profile has a cost model for its runtime, else multiply-accumulates.

    The seconds are those of the arithmetic (one thread, float32; depthwise convolutions at their share of the rate) and a fixed
    one for each convolution and linear layer; memory traffic is left out. Recurrent layers and attention's products between
    activations are not counted.
    """
    rates = context.target.profile.cost_model(context.target.runtime)
    counts = macs(model, context.forward, context.example)
    if rates is None or "float32" not in rates.macs_per_second:
        return float(sum(counts.values()))
    seconds = 0.0
    for name, count in counts.items():
        share = rates.depthwise_share if _is_depthwise(model.get_submodule(name)) else 1.0
        seconds += count / (rates.macs_per_second["float32"] * share) + rates.seconds_per_operator
    return seconds


def counted_share(model: nn.Module) -> float:
    """The share of a network's parameters that stands in layers whose cost is counted; embeddings, which cost nothing, aside."""
    counted = {id(p) for m in model.modules() if isinstance(m, PRODUCTS) for p in m.parameters(recurse=False)}
    free = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for p in m.parameters(recurse=False)}
    sizes = {id(p): p.numel() for p in model.parameters() if id(p) not in free}
    return sum(size for key, size in sizes.items() if key in counted) / max(1, sum(sizes.values()))


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.in_channels > 1
