"""Narrower inner chains: the expansion ratio of inverted residuals, bottlenecks and feed-forwards, lowered after the fact."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
)
from orchestrator_morphology.widths import narrower

if TYPE_CHECKING:
    from torch import nn


class ExpansionRatio(TorchMethod):
    """Keeps a share of the channels inside every chain whose intermediate tensors nothing else reads.

    Such are the expanded channels of an inverted residual, what lies between two convolutions in a row, and the inner layer of
    a transformer's feed-forward. The tensors between blocks keep their widths, so that nothing else has to follow. Those stay
    whose weights are greatest on the way in and out. (The width of residual streams is what channel-pruning narrows.)
    """

    name = "expansion-ratio"
    version = 1
    family = "morphology"
    reads = frozenset({"target.channel_multiple.float32"})
    summary = "Narrows the inside of inverted residuals, bottlenecks and feed-forwards (Sandler et al. 2018; Cai et al. 2020)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="keep",
            cheaper="low",
            help="share of the inner channels that stays, before rounding to the target's channel multiple",
            low=0.25,
            high=0.75,
            step=0.125,
            default=0.5,
            bounds=(0.05, 0.95),
        ),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_morphology.chains import find

        try:
            chains = find(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        if not chains:
            raise Refused("this network has no inner chain: no two layers in a row whose channels nothing else reads")
        multiple = context.target.channel_multiple("float32")
        keep = next(p for p in parameters if isinstance(p, Number))
        for index in reversed(range(keep.count())):
            high = round(keep.low + index * keep.step, 6)
            if any(narrower(c.channels, high, multiple) < c.channels for c in chains):
                return narrowed(parameters, keep={"high": high})
        raise Refused(f"no inner chain of this network is wider than the target's multiple of {multiple} channels")

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"the inside of blocks narrowed to {percent(parameters['keep'])} of its channels"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_morphology.chains import find, select, strongest

        keep, multiple = float(parameters["keep"]), context.target.channel_multiple("float32")
        plan = {}
        for chain in find(model, context):
            count = narrower(chain.channels, keep, multiple)
            if count < chain.channels:
                plan[chain] = strongest(model, chain, count)  # all are chosen before any weight goes
        if not plan:
            raise MethodError(
                f"{self.name}: keep={keep} narrows no chain in multiples of {multiple} channels; choose a lower one"
            )
        for chain, kept in plan.items():
            select(model, chain, kept)
        return model
