"""Small structural changes (morphs) that inherit the weights of a network. Imports torch; imported on use.

Each makes the network smaller by one step and does not change the rest (Cai et al. 2018; Elsken et al. 2019, "Efficient
Multi-objective Neural Architecture Search via Lamarckian Evolution", LEMONADE).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Size, nn

from orchestrator.plugin import MethodError
from orchestrator_morphology import blocks, chains
from orchestrator_morphology.factors import cheaper_ranks, factorised
from orchestrator_morphology.layers import replace_layer, replaceable_layers, shapes
from orchestrator_morphology.separable_convolution import separable, separated

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

FINEST = 8
"""A chain loses at least this part of its width at a time: wide ones would take hundreds of steps in the target's multiple."""

ENERGY = 0.8
"""Share of a layer's squared weights that its factors keep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Morph:
    """One structural change.

    Attributes:
        title: Description, unique in one network and the same from one generation to the next.
        apply: Changes that network, or a copy of it, in place; raises MethodError if that is not possible.
    """

    title: str
    apply: Callable[[nn.Module], object]


def propose(model: nn.Module, context: "BuildContext") -> list[Morph]:
    """Return all morphs of a network: remove a block, narrow a chain, factorise a layer, separate a convolution."""
    morphs = [
        Morph(title=f"without {block.name}", apply=partial(blocks.remove, blocks=[block]))
        for block in blocks.removable_blocks(model, context.forward, context.example)
    ]
    multiple = context.target.channel_multiple("float32")
    for chain in chains.inner_chains(model, context):
        step = max(multiple, chain.channels // FINEST // multiple * multiple)
        if chain.channels > step:
            apply = partial(_narrow, chain, chain.channels - step)
            morphs.append(Morph(title=f"fewer channels from {chain.outputs[0]}", apply=apply))
    calls, expected = replaceable_layers(model, context), shapes(model, context)
    dense = separable(model, calls)
    for name, call in calls.items():
        ranks = cheaper_ranks(model.get_submodule(name), call, "channel", ENERGY, multiple)
        if ranks:
            factorise = partial(factorised, kind="channel", chosen=ranks)
            morphs.append(Morph(title=f"factors for {name}", apply=partial(_replace, name, factorise, context, expected)))
        if name in dense:
            morphs.append(Morph(title=f"{name} separated", apply=partial(_replace, name, separated, context, expected)))
    return morphs


def _narrow(chain: chains.InnerChain, width: int, model: nn.Module) -> None:
    chains.select(model, chain, chains.strongest(model, chain, width))


def _replace(
    name: str, new: Callable[[nn.Module], nn.Module], context: "BuildContext", expected: Sequence[Size], model: nn.Module
) -> None:
    if not replace_layer(model, name, new(model.get_submodule(name)), context, expected):
        raise MethodError(f"this network does not run with another layer at {name}")
