"""Removal of whole blocks of a network.

Residual networks behave like ensembles of shallow ones (Veit et al. 2016), so that a block can be removed at little loss; the
block is chosen by its influence on the output (Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant
Than You Expect").
"""

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Need,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    narrowed,
    plural,
)
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_morphology.blocks import Block

EXAMPLES = 64
"""Calibration examples on which the influence of a block is measured."""

SEARCHED_SHARE = 2 / 3
"""Largest share of the removable blocks that the search removes; with fewer, too little of the network is left to recover."""


class BlockRemoval(MorphologyMethod):
    """Removes the blocks of least influence on the output one by one (Men et al. 2024), or evenly spaced ones.

    After each removal the influence of the others is measured again, as the distance of the outputs to those of the complete
    network. Evenly spaced removal reduces the depth of all stages alike, as a depth multiplier does (Tan and Le 2019).
    """

    name = "block-removal"
    version = 2
    reads = frozenset[str]()
    summary = "Removes whole blocks of least influence on the output (Veit et al. 2016; Men et al. 2024, ShortGPT)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="blocks",
            cheaper="high",
            help="number of removed blocks",
            low=1,
            high=8,
            step=1,
            default=1,
            integer=True,
            bounds=(1, 1000),
        ),
        Choice(
            name="order", help="blocks of least influence on the output, or evenly spaced ones", choices=("influence", "even")
        ),
    )
    needs = frozenset({Need.CALIBRATION})
    usual = True

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.blocks import removable_blocks

        count = _most(model, removable_blocks(model, context.forward, context.example))
        if not count:
            raise Refused("no block of this network can be removed: none returns a tensor of its input's shape")
        orders = ("influence", "even") if count > 1 else ("influence",)
        return narrowed(parameters, blocks={"high": max(1, int(count * SEARCHED_SHARE))}, order={"choices": orders})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        if parameters["order"] == "even":
            return f"{plural(parameters['blocks'], 'evenly spaced block')} removed"
        return f"{plural(parameters['blocks'], 'block')} of least influence removed"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator_morphology.blocks import removable_blocks, remove
        from orchestrator_morphology.layers import shapes

        count = int(parameters["blocks"])
        candidates = removable_blocks(model, context.forward, context.example)
        most = _most(model, candidates)
        if count > most:
            raise MethodError(f"{self.name}: this network can lose {most} blocks, but got blocks={count}")
        expected = shapes(model, context)
        even = parameters.get("order") == "even"
        remove(model, _evenly(candidates, count) if even else _least(model, candidates, count, context))
        if shapes(model, context) != expected:
            raise MethodError(f"{self.name}: without these blocks the outputs have another shape; remove fewer")
        return model


def _most(model: "nn.Module", blocks: "list[Block]") -> int:
    """Return the number of removable blocks; one stays if they hold most of the network's parameters."""
    in_blocks = sum(p.numel() for block in blocks for p in model.get_submodule(block.name).parameters())
    total = sum(p.numel() for p in model.parameters())
    return len(blocks) if in_blocks < 0.5 * total else len(blocks) - 1


def _batch(model: "nn.Module", context: BuildContext) -> "dict[str, Tensor]":
    """Return one batch of calibration examples on the device of the network."""
    import torch

    batch = next(iter(context.calibration(EXAMPLES, EXAMPLES)), None)
    if batch is None:
        raise MethodError("block-removal needs calibration examples, but the task has none; add a calibration or train split")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return {name: torch.as_tensor(array).to(device) for name, array in batch.items()}


def _evenly(candidates: "list[Block]", count: int) -> "list[Block]":
    """Return that many blocks, as far from one another and from both ends as possible."""
    return [candidates[int((index + 0.5) * len(candidates) / count)] for index in range(count)]


def _least(model: "nn.Module", candidates: "list[Block]", count: int, context: BuildContext) -> "list[Block]":
    """Return the blocks whose joint removal changes the outputs least, chosen greedily; the earlier of two equal ones."""
    from orchestrator.plugin.networks import distance, run
    from orchestrator_morphology.blocks import without

    inputs = _batch(model, context)
    reference = run(model, context.forward, inputs)
    chosen: list[Block] = []
    for _ in range(count):
        distances = []
        for block in candidates:
            if block not in chosen:
                with without(model, [*chosen, block]), suppress(Exception):  # the network may not run without both
                    distances.append((distance(reference, run(model, context.forward, inputs)), block))
        if not distances:
            raise MethodError(f"block-removal: without {len(chosen) + 1} blocks this network does not run; remove fewer")
        chosen.append(min(distances, key=lambda pair: pair[0])[1])
    return chosen
