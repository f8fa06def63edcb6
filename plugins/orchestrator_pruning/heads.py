"""Pruning of attention heads (Michel et al. 2019, "Are Sixteen Heads Really Better than One?")."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from orchestrator.errors import one_line
from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameters,
    ParameterValues,
    narrowed,
    number,
    percent,
)
from orchestrator_pruning.base import PruningMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_pruning.attention import AttentionLayer


class HeadPruning(PruningMethod):
    """Removes the attention heads that the output depends on least, over all layers; each keeps one (Michel et al. 2019).

    It prunes `nn.MultiheadAttention`, replaced by an attention of fewer heads with the same call, and modules with separate
    linear layers for queries, keys, values and output and an attribute with their number of heads. Each is tried on a copy:
    without a head it must compute what it computes with that head silenced.
    """

    name = "head-pruning"
    version = 1
    reads = frozenset({"task_loss"})
    summary = "Removes whole attention heads of least importance (Michel et al. 2019)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="ratio",
            cheaper="high",
            help="removed share of all attention heads of the network",
            low=0.1,
            high=0.6,
            step=0.1,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        Choice(
            name="importance",
            help="ranking of the heads: first-order Taylor expansion of the loss, or norm of the weights",
            choices=("taylor", "l2"),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        layers, ratio = _prunable(model, context), number(parameters, "ratio")
        total = sum(layer.heads for layer in layers)
        low = next((r for r in map(float, ratio.values()) if _count(layers, r) >= 1), ratio.high)
        high = min(ratio.high, max(low, low + int(((total - len(layers)) / total - low) / ratio.step) * ratio.step))
        return narrowed(parameters, ratio={"low": low, "high": round(high, 6)})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"attention heads -{percent(parameters['ratio'])} by {str(parameters['importance']).capitalize()} importance"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.networks import run, same
        from orchestrator_pruning.attention import remove_heads, silence_heads

        layers = _prunable(model, context)
        count = _count(layers, float(parameters["ratio"]))
        if count < 1:
            total = sum(layer.heads for layer in layers)
            raise MethodError(f"{self.name}: ratio={parameters['ratio']} removes none of {total} heads; choose a higher ratio")
        removed = _least_important(layers, _scores(model, layers, str(parameters["importance"]), context), count)
        silenced = copy.deepcopy(model)
        for layer in layers:
            silence_heads(silenced, layer, removed[layer.name])
            if removed[layer.name]:
                remove_heads(model, layer, removed[layer.name])
        if not same(run(silenced, context.forward, context.example), run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the outputs of the pruned network differ from those with these heads silenced")
        return model


def _count(layers: "Sequence[AttentionLayer]", ratio: float) -> int:
    """Return the number of heads to remove; one of each layer stays."""
    total = sum(layer.heads for layer in layers)
    return min(round(ratio * total), total - len(layers))


def _prunable(model: "nn.Module", context: BuildContext) -> "list[AttentionLayer]":
    """Return the attention layers that compute without their first head what they compute with it silenced.

    Raises:
        MethodError: There are none, with the reason.
    """
    from orchestrator.plugin.networks import run, same
    from orchestrator_pruning.attention import attention_layers, remove_heads, silence_heads

    prunable, reason = [], "the network has no attention of several heads whose projections are separate linear layers"
    for layer in attention_layers(model, context.forward, context.example):
        silenced, pruned = copy.deepcopy(model), copy.deepcopy(model)
        silence_heads(silenced, layer, [0])
        try:
            remove_heads(pruned, layer, [0])
            equal = same(run(silenced, context.forward, context.example), run(pruned, context.forward, context.example))
        except Exception as error:  # the user's own code may depend on the number of heads
            reason = f"{layer.name} does not run with fewer heads: {one_line(error)}"
            continue
        if equal:
            prunable.append(layer)
        else:
            reason = f"the outputs of {layer.name} with fewer heads differ from those with silenced ones"
    if not prunable:
        raise MethodError(f"head-pruning: {reason}")
    return prunable


def _scores(model: "nn.Module", layers: "Sequence[AttentionLayer]", kind: str, context: BuildContext) -> "dict[str, Tensor]":
    """Return the importance of each head, normalised to length 1 in each layer (Michel et al. 2019, section 4.1).

    Returns:
        `{name of the attention: float32 of shape (heads,)}`.
    """
    import torch

    from orchestrator_pruning.attention import by_head
    from orchestrator_pruning.importance import gradient_times_weight

    outputs = {layer.name: model.get_submodule(layer.output) for layer in layers}
    if kind == "l2":
        weights = {layer.name: model.get_parameter(f"{layer.output}.weight").detach().float() for layer in layers}
        totals = {layer.name: by_head(weights[layer.name], layer.heads, 1).norm(dim=(0, 2)) for layer in layers}
    else:
        totals = {layer.name: torch.zeros(layer.heads) for layer in layers}
        for products in gradient_times_weight(model, set(outputs.values()), context):
            for layer in layers:  # summed over the columns that read a head: its gradient times its result
                if outputs[layer.name] in products:
                    totals[layer.name] += by_head(products[outputs[layer.name]].float(), layer.heads, 1).sum((0, 2)).abs()
    return {name: score / score.norm().clamp(min=1e-12) for name, score in totals.items()}


def _least_important(layers: "Sequence[AttentionLayer]", scores: "Mapping[str, Tensor]", count: int) -> dict[str, list[int]]:
    """Return that many heads of least importance, never all of a layer: `{name of the attention: heads to remove}`."""
    removed: dict[str, list[int]] = {layer.name: [] for layer in layers}
    heads = {layer.name: layer.heads for layer in layers}
    ranked = sorted(
        (float(score), place, name, head)
        for place, (name, values) in enumerate(scores.items())
        for head, score in enumerate(values)
    )
    for _, _, name, head in ranked:
        if count and len(removed[name]) < heads[name] - 1:
            removed[name].append(head)
            count -= 1
    return {name: sorted(values) for name, values in removed.items()}
