"""Removal of whole blocks: depth, not width, is what an edge runtime waits for.

Residual networks behave like ensembles of shallow ones (Veit et al. 2016), so that a block can go at little cost; which one is
told by its influence (Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect").
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    plural,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_morphology.blocks import Block

EXAMPLES = 64
"""Calibration examples on which the influence of a block is measured."""

SEARCHED_SHARE = 2 / 3
"""The search takes out at most this share of the removable blocks; beyond it little of the network is left to recover."""


class BlockRemoval(TorchMethod):
    """Removes the blocks that the network's output depends on least, one after the other; or evenly spaced ones.

    After each removal the influence of the others is measured anew, against the outputs of the network as it came in. Evenly
    spaced removal lowers the depth of all stages alike, as a depth multiplier does (Tan and Le 2019), and measures nothing.
    """

    name = "block-removal"
    version = 2
    family = "morphology"
    reads = frozenset[str]()
    summary = "Removes whole blocks of least influence on the output (Veit et al. 2016; Men et al. 2024, ShortGPT)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="blocks",
            cheaper="high",
            help="how many blocks are removed",
            low=1,
            high=8,
            step=1,
            default=1,
            integer=True,
            bounds=(1, 1000),
        ),
        Choice(
            name="order",
            help="the blocks of least influence on the output, or evenly spaced ones",
            choices=("influence", "even"),
        ),
    )
    needs = frozenset({Need.CALIBRATION})
    before = frozenset({"pruning", "distillation", "graph", "quantization"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        count = _most(model, _removable(model, context))
        if not count:
            raise Refused("no block of this network can be removed: none hands on a tensor of the shape that it is given")
        orders = ("influence", "even") if count > 1 else ("influence",)
        return narrowed(parameters, blocks={"high": max(1, int(count * SEARCHED_SHARE))}, order={"choices": orders})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        if parameters["order"] == "even":
            return f"{plural(parameters['blocks'], 'evenly spaced block')} removed"
        return f"{plural(parameters['blocks'], 'block')} of least influence removed"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.networks import run
        from orchestrator_morphology.blocks import remove

        wanted = int(parameters["blocks"])
        candidates = _removable(model, context)
        most = _most(model, candidates)
        if wanted > most:
            raise MethodError(f"{self.name}: this network can lose {most} blocks, but got blocks={wanted}")
        shapes = [t.shape for t in run(model, context.forward, context.example)]
        even = parameters.get("order") == "even"
        remove(model, _evenly(candidates, wanted) if even else _least(model, candidates, wanted, _batch(model, context), context))
        if [t.shape for t in run(model, context.forward, context.example)] != shapes:
            raise MethodError(f"{self.name}: the outputs changed their shape without these blocks; remove fewer of them")
        return model


def _removable(model: "nn.Module", context: BuildContext) -> "list[Block]":
    from orchestrator_morphology.blocks import find

    return find(model, context.forward, context.example)


def _most(model: "nn.Module", blocks: "list[Block]") -> int:
    """How many of the blocks may go: one stays where they are all that the network has to compute with."""
    held = sum(p.numel() for block in blocks for p in model.get_submodule(block.name).parameters())
    whole = sum(p.numel() for p in model.parameters())
    return len(blocks) if held < 0.5 * whole else len(blocks) - 1


def _batch(model: "nn.Module", context: BuildContext) -> "dict[str, Tensor]":
    """One batch of calibration examples, where the network's parameters are."""
    import torch

    batch = next(iter(context.calibration(EXAMPLES, EXAMPLES)), None)
    if batch is None:
        raise MethodError("block-removal needs calibration examples, but the task has none; add a calibration or train split")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return {name: torch.as_tensor(array).to(device) for name, array in batch.items()}


def _evenly(candidates: "list[Block]", wanted: int) -> "list[Block]":
    """That many blocks, as far from one another and from both ends as they can be."""
    return [candidates[int((index + 0.5) * len(candidates) / wanted)] for index in range(wanted)]


def _least(
    model: "nn.Module", candidates: "list[Block]", wanted: int, inputs: "Mapping[str, Tensor]", context: BuildContext
) -> "list[Block]":
    """The blocks whose joint removal moves the output least, chosen greedily; the first in the network where two are equal."""
    from orchestrator.plugin.networks import distance, run
    from orchestrator_morphology.blocks import without

    reference = run(model, context.forward, inputs)
    chosen: list[Block] = []
    for _ in range(wanted):
        moved = []
        for block in candidates:
            if block not in chosen:
                with without(model, [*chosen, block]), suppress(Exception):  # the network may not run without both
                    moved.append((distance(reference, run(model, context.forward, inputs)), block))
        if not moved:
            raise MethodError(f"block-removal: without {len(chosen) + 1} blocks this network does not run; remove fewer")
        chosen.append(min(moved, key=lambda pair: pair[0])[1])
    return chosen
