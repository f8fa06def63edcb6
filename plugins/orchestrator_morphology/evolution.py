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
    percent,
    plural,
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

RATED_ANEW = 8
"""In each generation the morphs that were best before are tried again, this many."""

MOST_STEPS = 200
COUNTED = 0.5
"""Least share of the parameters whose cost must be countable."""


class Evolution(TorchMethod):
    """Changes the network step by step, each time by one of the morphs that do least damage for the cost they save.

    Every generation proposes all small morphs of this package (a block less, a chain narrower by one step, a layer in factors, a
    convolution separated), tries the promising ones on copies, and takes one of the best few by damage for saved cost (seeded).
    Damage is how far the outputs move from the original's on train examples. The child inherits all other weights and is trained
    towards the original for a while, the epochs spread over the way. One lineage is followed, not a population as in Real et
    al. 2017: ranking the morphs of one parent needs no training, keeping more parents would multiply it.

    Cost is estimated in milliseconds by the constants of the target's profile, else it is multiply-accumulates (see
    `costs`); it only orders morphs and ends the evolution, the candidate itself is measured by the search.
    """

    name = "evolution"
    version = 1
    family = "morphology"
    reads = frozenset({"target.channel_multiple.float32", "target.profile", "target.runtime", "task_loss", "train"})
    summary = (
        "Shrinks the network by small morphs that inherit its weights (Real et al. 2017; Cai et al. 2018; Elsken et al. 2019)."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
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
    learns_structure = True

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

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        goal = f"evolved to {percent(parameters['target_share'])} of the original's estimated cost"
        return f"{goal}, with {plural(parameters['epochs'], 'epoch')} on the way"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        import numpy as np

        from orchestrator.plugin.losses import TeacherLoss
        from orchestrator.plugin.networks import run
        from orchestrator_morphology.costs import cost

        loss, random = TeacherLoss.of(context), np.random.default_rng(context.seed)
        batch, among = _batch(context), int(parameters["among"])
        ranking = _Ranking(batch, run(context.original or model, context.forward, batch), context)
        start = cost(context.original or model, context)
        now, epochs, goal = cost(model, context), float(parameters["epochs"]), float(parameters["target_share"]) * start
        way, trained = max(now - goal, 0.0), 0.0
        for _ in range(MOST_STEPS):
            if now <= goal:
                break
            best = ranking.best(model, now, among)
            if not best:
                raise MethodError(
                    f"{self.name}: no morph makes this network cheaper than {now / start:.0%} of its cost, but got"
                    f" target_share={parameters['target_share']}; choose a higher one"
                )
            best[int(random.integers(len(best)))].apply(model)
            now = cost(model, context)
            done = min(1.0, (start - now) / way) if way else 1.0
            stretch = math.floor(done * STAGES) / STAGES
            if stretch > trained:
                context.train(
                    model, epochs=max((stretch - trained) * epochs, LEAST_EPOCHS), loss=loss, learning_rate=LEARNING_RATE
                )
                trained = stretch
                ranking.forget()
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


class _Ranking:
    """Orders morphs by damage for saved cost.

    What was rated in a generation before is remembered: only the best of those are rated anew, on the network as it is now
    (lazy greedy selection: Minoux 1978). After training everything is rated anew.
    """

    def __init__(self, batch: "Mapping[str, Tensor]", reference: "list[Tensor]", context: BuildContext) -> None:
        self._batch, self._reference, self._context = batch, reference, context
        self._known: dict[str, float] = {}

    def forget(self) -> None:
        """Every weight has changed."""
        self._known.clear()

    def best(self, model: "nn.Module", now: float, count: int) -> "list[Morph]":
        """At most `count` morphs that save cost, those first that do least damage for it; the network's order where equal.

        Args:
            now: The network's present cost.
        """
        from orchestrator_morphology.morphs import propose

        morphs = sorted(propose(model, self._context), key=lambda morph: self._known.get(morph.title, -1.0))
        before = self._moved(model)
        rated: list[tuple[float, Morph]] = []
        for index, morph in enumerate(morphs):
            fresh = sum(math.isfinite(rating) for rating, _ in rated)
            if morph.title in self._known and index >= RATED_ANEW and fresh >= count:
                break
            self._known[morph.title] = self._rating(model, morph, now, before)
            rated.append((self._known[morph.title], morph))
        order = sorted((pair for pair in rated if math.isfinite(pair[0])), key=lambda pair: pair[0])
        return [morph for _, morph in order[:count]]

    def _rating(self, model: "nn.Module", morph: "Morph", now: float, before: float) -> float:
        """Damage for saved share of the cost; infinite where nothing is saved or the child does not run."""
        from orchestrator_morphology.costs import cost

        child = copy.deepcopy(model)
        try:
            morph.apply(child)
            saved = (now - cost(child, self._context)) / now
            damage = max(self._moved(child) - before, LEAST_DAMAGE)
        except Exception:  # a network that does not run so is no child
            return math.inf
        return damage / saved if saved > 0 and math.isfinite(damage) else math.inf

    def _moved(self, model: "nn.Module") -> float:
        from orchestrator.plugin.networks import distance, run

        return distance(self._reference, run(model, self._context.forward, self._batch))
