"""Small changes of a network that keep its weights. Loads torch: imported lazily.

Each makes the network smaller by one step and leaves what it does not touch as it was, so that the child inherits what the
parent learnt (Cai et al. 2018; Elsken et al. 2019, "Efficient Multi-objective Neural Architecture Search via Lamarckian
Evolution", LEMONADE).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Size, nn

from orchestrator.plugin import MethodError
from orchestrator_morphology import blocks, chains
from orchestrator_morphology.factors import factorised, macs, ranks, spectra
from orchestrator_morphology.layers import products, put, shapes
from orchestrator_morphology.separable_convolution import dense, separated

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

FINEST = 8
"""A chain loses at least this part of its width at a time: a wide one would take hundreds of steps in the target's multiple."""

ENERGY = 0.8
"""Share of a layer's squared weights that its factors keep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Morph:
    """One change.

    Attributes:
        title: What it does to what, unique in one network; the same from one generation to the next.
        apply: Changes that network, or a copy of it, in place.

    `apply` raises MethodError where the change cannot be made.
    """

    title: str
    apply: Callable[[nn.Module], None]


def propose(model: nn.Module, context: "BuildContext") -> list[Morph]:
    """All small changes that this network offers: a block less, a narrower chain, a layer in factors, a convolution separated."""
    found = [_shorter(block) for block in blocks.find(model, context.forward, context.example)]
    multiple = context.target.channel_multiple("float32")
    for chain in chains.find(model, context):
        step = max(multiple, chain.channels // FINEST // multiple * multiple)
        if chain.channels > step:
            found.append(_narrower(chain, chain.channels - step))
    calls, expected = products(model, context), shapes(model, context)
    separable = dense(model, calls)
    for name, call in calls.items():
        layer = model.get_submodule(name)
        values = spectra(layer, "channel")
        chosen = ranks(values, ENERGY, multiple) if values else None
        if chosen and macs(layer, call, "channel", chosen) < macs(layer, call, "channel"):
            made = partial(factorised, kind="channel", chosen=chosen)
            found.append(Morph(title=f"factors for {name}", apply=_put(name, made, context, expected)))
        if name in separable:
            found.append(Morph(title=f"{name} separated", apply=_put(name, separated, context, expected)))
    return found


def _shorter(block: blocks.Block) -> Morph:
    def apply(model: nn.Module) -> None:
        blocks.remove(model, [block])

    return Morph(title=f"without {block.name}", apply=apply)


def _narrower(chain: chains.InnerChain, width: int) -> Morph:
    def apply(model: nn.Module) -> None:
        chains.select(model, chain, chains.strongest(model, chain, width))

    return Morph(title=f"fewer channels from {chain.producer}", apply=apply)


def _put(
    name: str, make: Callable[[nn.Module], nn.Module], context: "BuildContext", expected: Sequence[Size]
) -> Callable[[nn.Module], None]:
    def apply(model: nn.Module) -> None:
        if not put(model, name, make(model.get_submodule(name)), context, expected):
            raise MethodError(f"this network does not run with another layer at {name}")

    return apply
