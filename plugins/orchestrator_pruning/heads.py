"""Removal of whole attention heads (Michel et al. 2019, "Are Sixteen Heads Really Better than One?")."""

import copy
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
    percent,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_pruning.attention import Attention


class HeadPruning(TorchMethod):
    """Removes the attention heads that the output depends on least, over all layers together; each layer keeps one at least.

    It takes `nn.MultiheadAttention`, which becomes an attention of fewer heads with the same call, and modules with separate
    linear layers for queries, keys, values and output that hold their number of heads in an attribute. Each is tried on a copy:
    without a head it must compute what it computes with that head silenced.
    """

    name = "head-pruning"
    version = 1
    family = "pruning"
    summary = "Removes whole attention heads of least importance (Michel et al. 2019)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="ratio",
            cheaper="high",
            help="share of all attention heads of the network that is removed",
            low=0.1,
            high=0.6,
            step=0.1,
            default=0.3,
            bounds=(0.01, 0.95),
        ),
        Choice(
            name="importance",
            help="what ranks the heads: first-order Taylor expansion of the loss, or the norm of their weights",
            choices=("taylor", "l2"),
        ),
    )
    after = frozenset({"morphology"})
    before = frozenset({"distillation", "graph", "quantization"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        found = _sound(model, context)
        ratio = next(p for p in parameters if isinstance(p, Number))
        low = round(ratio.low, 6)
        total = sum(attention.heads for attention in found)
        while _count(found, low) < 1 and low < ratio.high:
            low = round(low + ratio.step, 6)
        high = min(ratio.high, max(low, low + int(((total - len(found)) / total - low) / ratio.step) * ratio.step))
        return narrowed(parameters, ratio={"low": low, "high": round(high, 6)})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"attention heads -{percent(parameters['ratio'])} by {str(parameters['importance']).capitalize()} importance"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.networks import run, same
        from orchestrator_pruning.attention import remove, silence

        try:
            found = _sound(model, context)
        except Refused as error:
            raise MethodError(f"{self.name}: {error}") from error
        count = _count(found, float(parameters["ratio"]))
        if count < 1:
            raise MethodError(f"{self.name}: ratio {parameters['ratio']} removes none of {sum(a.heads for a in found)} heads")
        gone = _least(found, _scores(model, found, str(parameters["importance"]), context), count)
        silenced = copy.deepcopy(model)
        for attention in found:
            silence(silenced, attention, gone[attention.name])
            if gone[attention.name]:
                remove(model, attention, gone[attention.name])
        if not same(run(silenced, context.forward, context.example), run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the network without these heads does not compute what it should")
        return model


def _count(found: "Sequence[Attention]", ratio: float) -> int:
    """How many heads go: one of each layer stays."""
    total = sum(attention.heads for attention in found)
    return min(round(ratio * total), total - len(found))


def _sound(model: "nn.Module", context: BuildContext) -> "list[Attention]":
    """The attention layers that compute without their first head what they compute with it silenced.

    Raises:
        Refused: there are none, with the reason.
    """
    from orchestrator.plugin.networks import run, same
    from orchestrator_pruning.attention import find, remove, silence

    sound, reason = [], "the network has no attention of several heads whose projections are separate linear layers"
    for attention in find(model, context.forward, context.example):
        silenced, without = copy.deepcopy(model), copy.deepcopy(model)
        silence(silenced, attention, [0])
        try:
            remove(without, attention, [0])
            right = same(run(silenced, context.forward, context.example), run(without, context.forward, context.example))
        except Exception as error:  # what the user's own code raises where it counts on all heads
            text = " ".join(f"{type(error).__name__}: {error}".split())
            reason = f"{attention.name} does not run with fewer heads: {text:.150}"
            continue
        if right:
            sound.append(attention)
        else:
            reason = f"{attention.name} does not compute with fewer heads what it computes with silenced ones"
    if not sound:
        raise Refused(reason)
    return sound


def _scores(model: "nn.Module", found: "Sequence[Attention]", kind: str, context: BuildContext) -> "dict[str, Tensor]":
    """The importance of each head, brought to length one in each layer (Michel et al. 2019, section 4.1).

    Returns:
        `{name of the attention: float32 of shape (heads,)}`.
    """
    import torch
    from torch import nn

    from orchestrator_pruning.attention import by_head
    from orchestrator_pruning.importance import gradient_times_weight

    outputs = {a.name: model.get_submodule(a.output) for a in found}
    totals = {a.name: torch.zeros(a.heads) for a in found}
    if kind == "l2":
        for a in found:
            layer = outputs[a.name]
            if isinstance(layer, nn.Linear):
                totals[a.name] = by_head(layer.weight.detach().float(), a.heads, 1).norm(dim=(0, 2))
        return {name: score / score.norm().clamp(min=1e-12) for name, score in totals.items()}
    for effects in gradient_times_weight(model, set(outputs.values()), context):
        for a in found:  # gradient times weight over the columns that read a head: gradient times the head's result
            if outputs[a.name] in effects:
                totals[a.name] += by_head(effects[outputs[a.name]].float(), a.heads, 1).sum((0, 2)).abs()
    return {name: score / score.norm().clamp(min=1e-12) for name, score in totals.items()}


def _least(found: "Sequence[Attention]", scores: "Mapping[str, Tensor]", count: int) -> dict[str, list[int]]:
    """That many heads of least importance, but never all of a layer: `{name of the attention: heads that go}`."""
    gone: dict[str, list[int]] = {attention.name: [] for attention in found}
    heads = {attention.name: attention.heads for attention in found}
    ranked = sorted(
        (float(score), place, name, head)
        for place, (name, values) in enumerate(scores.items())
        for head, score in enumerate(values)
    )
    for _, __, name, head in ranked:
        if count and len(gone[name]) < heads[name] - 1:
            gone[name].append(head)
            count -= 1
    return {name: sorted(values) for name, values in gone.items()}
