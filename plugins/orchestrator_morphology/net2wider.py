"""Wider inner chains that compute the same: Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, MethodError, Number, Parameter, ParameterValue, Refused, TorchMethod
from orchestrator_morphology.widths import wider

if TYPE_CHECKING:
    from torch import nn

    from orchestrator_morphology.chains import InnerChain

LEAST_PART = 0.3
"""A copied channel and its copies share the outgoing weights; none gets less than about this part of an even share."""


class Net2Wider(TorchMethod):
    """Widens every inner chain by copies of its channels and divides the outgoing weights among them.

    The network computes what it did, which is checked, and costs more: for accuracy where there is room. Chen et al. break the
    symmetry of copies by noise; here the outgoing weights are divided unevenly (seeded), so that the copies learn differently
    and the function stays exactly the same. Which channels are copied is drawn too.
    """

    name = "net2wider"
    version = 1
    family = "morphology"
    reads = frozenset({"target.channel_multiple.float32"})
    summary = "Widens inner chains without changing what the network computes (Chen et al. 2016, Net2Net)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="factor",
            help="how many times the inner channels there are afterwards, before rounding up to the target's channel multiple",
            low=1.25,
            high=2.0,
            step=0.25,
            default=1.5,
            bounds=(1.01, 8.0),
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
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"inner channels widened {parameters['factor']} times"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.networks import run, same
        from orchestrator_morphology.chains import find

        factor, multiple = float(parameters["factor"]), context.target.channel_multiple("float32")
        before = run(model, context.forward, context.example)
        chains = find(model, context)
        if not chains:
            raise MethodError(f"{self.name}: this network has no inner chain to widen")
        for index, chain in enumerate(chains):
            _widen(model, chain, wider(chain.channels, factor, multiple), seed=context.seed * 10007 + index)
        if not same(before, run(model, context.forward, context.example)):
            raise MethodError(f"{self.name}: the wider network does not compute what it did")
        return model


def _widen(model: "nn.Module", chain: "InnerChain", width: int, seed: int) -> None:
    """Give a chain that many channels, in place: its own, then copies of some that are drawn."""
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
