"""Evolution by small morphs that inherit weights, until a share of the cost is reached."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
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
    percent,
    plural,
)
from orchestrator.plugin.training import EPOCHS, LEAST_EPOCHS, epochs_range
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from orchestrator_morphology.morphs import Morph

EXAMPLES = 64
"""Train examples on which the damage of a morph is measured."""

STAGES = 4
"""Largest number of trainings on the way to the target."""

LEARNING_RATE = 3e-4
LEAST_DAMAGE = 1e-6
"""Damage below which of two morphs the one that saves more comes first."""

RATED_AGAIN = 8
"""Morphs of each generation that are rated again: those that were best before."""

MOST_STEPS = 200
COUNTED = 0.5
"""Least share of the parameters in layers whose cost is counted."""


class Evolution(MorphologyMethod):
    """Changes the network step by step by the morphs of least damage for the saved cost (Real et al. 2017; Elsken et al. 2019).

    Every generation proposes all small morphs of this package (remove a block, narrow a chain by one step, factorise a layer,
    separate a convolution), tries the promising ones on copies, and applies one of the best few by damage for saved cost
    (seeded). Damage is the distance of the outputs to the original's on train examples. The child inherits all other weights and
    is trained towards the original from time to time. One lineage is followed, not a population as in Real et al. 2017: ranking
    the morphs of one parent needs no training.

    Cost is estimated in milliseconds by the latency model of the target's profile, or in multiply-accumulates; it only orders
    morphs and ends the evolution, and the search measures the candidate.
    """

    name = "evolution"
    version = 2
    reads = frozenset({"target.channel_multiple.float32", "target.profile", "target.runtime", "task_loss", "train"})
    summary = (
        "Shrinks the network by small morphs that inherit its weights (Real et al. 2017; Cai et al. 2018; Elsken et al. 2019)."
    )
    parameters: ClassVar[Parameters] = (
        Number(
            name="target_share",
            cheaper="low",
            help="share of the original's estimated cost to reach",
            low=0.5,
            high=0.9,
            step=0.1,
            default=0.7,
            bounds=(0.05, 0.99),
        ),
        replace(EPOCHS, help="passes over the train split, distributed over the steps; may be a fraction"),
        Choice(name="among", help="each step applies one of this many best morphs; 1: always the best", choices=(1, 3)),
    )
    needs = frozenset({Need.TRAIN})
    learns_structure = True

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.costs import counted_share
        from orchestrator_morphology.morphs import propose

        epochs = epochs_range(context)
        if counted_share(model) < COUNTED:
            raise Refused("most parameters are in layers whose cost is not counted: neither convolutions nor linear layers")
        if not propose(model, context):
            raise Refused("this network has no block, chain or layer that a small morph makes cheaper")
        return narrowed(parameters, epochs=epochs)

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        goal = f"evolved to {percent(parameters['target_share'])} of the original's estimated cost"
        return f"{goal}, with {plural(parameters['epochs'], 'epoch')} on the way"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        import numpy as np

        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator_morphology.costs import cost

        loss, random = TeacherLoss.of(context), np.random.default_rng(context.seed)
        among, epochs = int(parameters["among"]), float(parameters["epochs"])
        ranking = _Ranking(model, context)
        start, present = cost(context.original or model, context), cost(model, context)
        goal = float(parameters["target_share"]) * start
        distance, trained = max(present - goal, 0.0), 0.0
        for _ in range(MOST_STEPS):
            if present <= goal:
                break
            best = ranking.best(model, present, among)
            if not best:
                raise MethodError(
                    f"{self.name}: no morph makes this network cheaper than {present / start:.0%} of its cost, but got"
                    f" target_share={parameters['target_share']}; choose a higher one"
                )
            best[int(random.integers(len(best)))].apply(model)
            present = cost(model, context)
            progress = min(1.0, (start - present) / distance) if distance else 1.0
            stage = math.floor(progress * STAGES) / STAGES
            if stage > trained:
                share = max((stage - trained) * epochs, LEAST_EPOCHS)
                context.train(model, epochs=share, loss=loss, learning_rate=LEARNING_RATE)
                trained = stage
                ranking.forget()
        if present > goal:
            raise MethodError(
                f"{self.name}: {MOST_STEPS} steps reach {present / start:.0%} of the cost; choose a higher target_share"
            )
        return model


class _Ranking:
    """Order of morphs by damage for saved cost.

    Ratings of earlier generations are kept, and only the best of those morphs are rated again on the present network (lazy greedy
    selection: Minoux 1978). After a training all morphs are rated again.
    """

    def __init__(self, model: "nn.Module", context: BuildContext) -> None:
        from orchestrator.plugin.networks import run

        batch = next(iter(context.samples(EXAMPLES, EXAMPLES)), None)
        if batch is None:
            raise MethodError("evolution needs train examples, but the task has none")
        self._inputs: Mapping[str, Tensor] = batch[0]
        self._context = context
        self._reference = run(context.original or model, context.forward, self._inputs)
        self._ratings: dict[str, float] = {}

    def forget(self) -> None:
        """Discard all ratings, because every weight has changed."""
        self._ratings.clear()

    def best(self, model: "nn.Module", present: float, count: int) -> "list[Morph]":
        """Return at most `count` morphs that save cost, those of least damage for it first; the network's order if equal.

        Args:
            model: The present network.
            present: Its cost.
            count: Number of morphs.
        """
        from orchestrator_morphology.morphs import propose

        morphs = sorted(propose(model, self._context), key=lambda morph: self._ratings.get(morph.title, -1.0))
        before = self._distance(model)
        rated: list[tuple[float, Morph]] = []
        for index, morph in enumerate(morphs):
            fresh = sum(math.isfinite(rating) for rating, _ in rated)
            if morph.title in self._ratings and index >= RATED_AGAIN and fresh >= count:
                break
            self._ratings[morph.title] = self._rating(model, morph, present, before)
            rated.append((self._ratings[morph.title], morph))
        order = sorted((pair for pair in rated if math.isfinite(pair[0])), key=lambda pair: pair[0])
        return [morph for _, morph in order[:count]]

    def _rating(self, model: "nn.Module", morph: "Morph", present: float, before: float) -> float:
        """Return the damage for each saved share of the cost; infinite if nothing is saved or the child does not run."""
        from orchestrator_morphology.costs import cost

        child = copy.deepcopy(model)
        try:
            morph.apply(child)
            saved = (present - cost(child, self._context)) / present
            damage = max(self._distance(child) - before, LEAST_DAMAGE)
        except Exception:  # a network that does not run is no child
            return math.inf
        return damage / saved if saved > 0 and math.isfinite(damage) else math.inf

    def _distance(self, model: "nn.Module") -> float:
        from orchestrator.plugin.networks import distance, run

        return distance(self._reference, run(model, self._context.forward, self._inputs))
