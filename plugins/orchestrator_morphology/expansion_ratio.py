"""Narrower inner chains: a lower expansion ratio of inverted residuals, bottlenecks and feed-forwards."""

from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, MethodError, Number, Parameters, ParameterValues, Refused, narrowed, number, percent
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn


class ExpansionRatio(MorphologyMethod):
    """Narrows the inside of every inner chain of layers (Sandler et al. 2018), whose channels no other layer reads.

    Inner chains are the expanded channels of an inverted residual, two convolutions in a row, and the inner layer of a
    transformer's feed-forward. The channels with the largest weights stay. The tensors between blocks keep their widths
    (channel-pruning narrows residual streams).
    """

    name = "expansion-ratio"
    version = 2
    reads = frozenset({"target.channel_multiple.float32"})
    summary = "Narrows the inside of inverted residuals, bottlenecks and feed-forwards (Sandler et al. 2018; Cai et al. 2020)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="keep",
            cheaper="low",
            help="remaining share of the inner channels, before rounding to the target's channel multiple",
            low=0.25,
            high=0.75,
            step=0.125,
            default=0.5,
            bounds=(0.05, 0.95),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.channel_groups import nearest_width
        from orchestrator_morphology.chains import inner_chains

        widths = [chain.channels for chain in inner_chains(model, context)]
        if not widths:
            raise Refused("this network has no inner chain: no two layers in a row whose channels no other layer reads")
        multiple = context.target.channel_multiple("float32")
        for high in map(float, reversed(number(parameters, "keep").values())):
            if any(nearest_width(width, width * high, multiple) < width for width in widths):
                return narrowed(parameters, keep={"high": high})
        raise Refused(f"no inner chain of this network is wider than the target's multiple of {multiple} channels")

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"the inside of blocks narrowed to {percent(parameters['keep'])} of its channels"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.channel_groups import nearest_width
        from orchestrator_morphology.chains import inner_chains, select, strongest

        keep, multiple = float(parameters["keep"]), context.target.channel_multiple("float32")
        chains = inner_chains(model, context)
        widths = {chain: nearest_width(chain.channels, chain.channels * keep, multiple) for chain in chains}
        kept = {chain: strongest(model, chain, width) for chain, width in widths.items() if width < chain.channels}
        if not kept:
            raise MethodError(
                f"{self.name}: keep={keep} narrows no chain in multiples of {multiple} channels; choose a lower one"
            )
        for chain, channels in kept.items():  # all are chosen before any weight changes
            select(model, chain, channels)
        return model
