"""Wider networks that compute the same (Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer")."""

import math
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, MethodError, Number, Parameters, ParameterValues, Refused
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn

    from orchestrator_morphology.chains import InnerChain

LEAST_PART = 0.3
"""Least part of an even share of the outgoing weights that a channel or a copy of it gets, about."""


class Net2Wider(MorphologyMethod):
    """Widens every inner chain by copies of its channels and divides the outgoing weights among them (Chen et al. 2016).

    The network computes the same, which is checked, and costs more. Chen et al. break the symmetry of copies by noise; here the
    outgoing weights are divided unevenly (seeded), so that the copies learn differently and the function does not change. The
    copied channels are drawn at random (seeded).
    """

    name = "net2wider"
    version = 2
    reads = frozenset({"target.channel_multiple.float32"})
    summary = "Widens inner chains without changing what the network computes (Chen et al. 2016, Net2Net)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="factor",
            help="factor on the number of inner channels, before rounding up to the target's channel multiple",
            low=1.25,
            high=2.0,
            step=0.25,
            default=1.5,
            bounds=(1.01, 8.0),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.chains import inner_chains

        if not inner_chains(model, context):
            raise Refused("this network has no inner chain: no two layers in a row whose channels no other layer reads")
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"inner channels widened {parameters['factor']} times"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.networks import run, same
        from orchestrator_morphology.chains import inner_chains

        factor, multiple = float(parameters["factor"]), context.target.channel_multiple("float32")
        before = run(model, context.forward, context.example)
        chains = inner_chains(model, context)
        if not chains:
            raise MethodError(f"{self.name}: this network has no inner chain to widen")
        for index, chain in enumerate(chains):
            _widen(model, chain, wider(chain.channels, factor, multiple), seed=context.seed * 10007 + index)
        if not same(before, run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the outputs of the wider network differ from those of the original")
        return model


def wider(channels: int, factor: float, multiple: int) -> int:
    """Return the least multiple that reaches `factor` times the channels."""
    return math.ceil(channels * factor / multiple - 1e-9) * multiple


def _widen(model: "nn.Module", chain: "InnerChain", width: int, seed: int) -> None:
    """Widen a chain to that many channels in place: its own, then copies of randomly drawn ones."""
    import numpy as np

    from orchestrator_morphology.chains import select

    random = np.random.default_rng(seed)
    copies: list[int] = []
    while len(copies) < width - chain.channels:  # each is copied once before any is copied twice
        copies += random.permutation(chain.channels).tolist()
    channels = np.array([*range(chain.channels), *copies[: width - chain.channels]])
    parts = random.uniform(LEAST_PART, 1.0, width)
    shares = parts / np.bincount(channels, weights=parts, minlength=chain.channels)[channels]
    select(model, chain, channels.tolist(), shares.tolist())
