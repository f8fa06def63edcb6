"""Evolution by small morphs that inherit weights, until a share of the cost is reached."""

import copy
import math
from collections.abc import Mapping
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
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_morphology.morphs import Morph

EXAMPLES = 64
"""Train examples on which the damage of a morph is measured."""

STAGES = 4
"""The short training is spread over at most this many stretches of the way to the target."""

LEARNING_RATE = 3e-4
LEAST_EPOCHS = 0.001
LEAST_DAMAGE = 1e-6
"""Of two morphs below it the one that saves more comes first."""

MOST_STEPS = 200
COUNTED = 0.5
"""Least share of the parameters whose cost must be countable."""


class Evolution(TorchMethod):
    """Changes the network step by step, each time by one of the morphs that do least damage for the cost they save.

    Every generation proposes all small morphs of this package (a block less, a chain narrower by one step, a layer in factors, a
    convolution separated), tries each on a copy, and takes one of the best few by damage for saved cost (seeded). Damage is how
    far the outputs move from the original's on train examples. The child inherits all other weights and is trained towards
    the original for a while, the epochs spread over the way. One lineage is followed, not a population as in Real et al. 2017:
    ranking the morphs of one parent needs no training, keeping more parents would multiply it.

    Cost is estimated in seconds by the cost model of the target's profile where it has one, else it is multiply-accumulates (see
    `costs`); it only orders morphs and ends the evolution, the candidate itself is measured by the search.
    """

    name = "evolution"
    version = 1
    family = "morphology"
    summary = (
        "Shrinks the network by small morphs that inherit its weights (Real et al. 2017; Cai et al. 2018; Elsken et al. 2019)."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="target_share",
            help="share of the original's estimated cost to reach",
            low=0.5,
            high=0.9,
            step=0.1,
            default=0.7,
            bounds=(0.05, 0.99),
        ),
        Number(
            name="epochs",
            help="passes over the train split, spread over the steps; fractions are served",
            low=1,
            high=10,
            step=4.5,
            default=1,
            bounds=(LEAST_EPOCHS, 1000),
        ),
        Choice(name="among", help="each step takes one of this many best morphs; 1: always the best", choices=(1, 3)),
    )
    needs = frozenset({Need.TRAIN})
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_morphology.costs import counted_share
        from orchestrator_morphology.morphs import propose

        least, most = context.epochs
        if most < LEAST_EPOCHS:
            raise Refused(f"{self.name}: the budget pays for no training; give the search more time")
        if counted_share(model) < COUNTED:
            raise Refused("most of this network stands in layers whose cost is not counted: neither convolutions nor linear ones")
        try:
            morphs = propose(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        if not morphs:
            raise Refused("this network offers no block, chain or layer that a small morph could make cheaper")
        least = max(least, LEAST_EPOCHS)
        return narrowed(parameters, epochs={"low": least, "high": most, "step": max((most - least) / 2, 1e-3), "default": most})

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        import numpy as np

        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator_morphology.costs import cost

        loss, random = TeacherLoss.of(context), np.random.default_rng(context.seed)
        batch = _batch(context)
        reference = _answers(context.original or model, batch, context)
        start = cost(context.original or model, context)
        now, epochs, goal = cost(model, context), float(parameters["epochs"]), float(parameters["target_share"]) * start
        way, trained = max(now - goal, 0.0), 0.0
        for _ in range(MOST_STEPS):
            if now <= goal:
                break
            ranked = _ranked(model, batch, reference, now, context)
            if not ranked:
                raise MethodError(
                    f"{self.name}: no morph makes this network cheaper than {now / start:.0%} of its cost, but got"
                    f" target_share={parameters['target_share']}; choose a higher one"
                )
            drawn = int(random.integers(min(int(parameters["among"]), len(ranked))))
            ranked[drawn].apply(model)
            now = cost(model, context)
            done = min(1.0, (start - now) / way) if way else 1.0
            stretch = math.floor(done * STAGES) / STAGES
            if stretch > trained:
                context.train(
                    model, epochs=max((stretch - trained) * epochs, LEAST_EPOCHS), loss=loss, learning_rate=LEARNING_RATE
                )
                trained = stretch
        if now > goal:
            raise MethodError(
                f"{self.name}: {MOST_STEPS} steps reach {now / start:.0%} of the cost; choose a higher target_share"
            )
        return model


def _batch(context: BuildContext) -> "Mapping[str, Tensor]":
    batch = next(iter(context.samples(EXAMPLES, EXAMPLES)), None)
    if batch is None:
        raise MethodError("evolution needs train examples, but the task has none")
    return batch[0]


def _answers(model: "nn.Module", batch: "Mapping[str, Tensor]", context: BuildContext) -> "list[Tensor]":
    from orchestrator.plugin.networks import run

    return run(model, context.forward, batch)


def _ranked(
    model: "nn.Module",
    batch: "Mapping[str, Tensor]",
    reference: "list[Tensor]",
    now: float,
    context: BuildContext,
) -> "list[Morph]":
    """The morphs that save cost, those first that do least damage for it; in the network's order where two are equal."""
    from orchestrator.plugin.networks import distance
    from orchestrator_morphology.costs import cost
    from orchestrator_morphology.morphs import propose

    before = distance(reference, _answers(model, batch, context))
    rated: list[tuple[float, Morph]] = []
    for morph in propose(model, context):
        child = copy.deepcopy(model)
        try:
            morph.apply(child)
            saved = (now - cost(child, context)) / now
            damage = distance(reference, _answers(child, batch, context)) - before
        except Exception:  # a network that does not run so is no child
            saved, damage = 0.0, math.inf
        if saved > 0 and math.isfinite(damage):
            rated.append((max(damage, LEAST_DAMAGE) / saved, morph))
    return [morph for _, morph in sorted(rated, key=lambda pair: pair[0])]
