"""The questions of a search: which recipe is tried next, and what is told to the study of those that come twice."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import optuna

from orchestrator.searching import study as studies
from orchestrator.searching.archive import Archive
from orchestrator.searching.space import Space
from orchestrator.searching.trial import Built
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult

DUPLICATES_BEFORE_RANDOM = 3
RANDOM_TRIES = 500


@dataclass(kw_only=True, slots=True)
class UnderWay:
    """A candidate between ask and tell.

    Attributes:
        made: Its record, or what is being measured.
        timeout_s: Time that its build was given.
        same: Trials that asked for the same recipe meanwhile: they are told the same.
        seconds: What making it has taken the main thread.
        revived: Its record so far, where it was stopped before and goes on: nothing was asked, and the study was told already.
    """

    recipe: Recipe
    trial: optuna.Trial | None
    timeout_s: float
    made: CandidateResult | Built | None = None
    same: list[optuna.Trial] = field(default_factory=list)
    seconds: float = 0.0
    revived: CandidateResult | None = None


class Questions:
    """Asks the study.

    Args:
        generator: For recipes drawn by ourselves, where the sampler only repeats itself.
    """

    def __init__(self, study: optuna.Study, space: Space, archive: Archive, generator: np.random.Generator) -> None:
        self._study, self._space, self._archive, self._generator = study, space, archive, generator

    def ask(self, under_way: Mapping[str, UnderWay]) -> tuple[optuna.Trial, Recipe] | None:
        """A trial whose recipe is new; None where every recipe was tried.

        What is known is told again as it was, so that the sampler learns from it; what is under way will be.
        """
        duplicates = 0
        while True:
            trial = self._study.ask()
            recipe = self._space.suggest(trial)
            known = self._archive.known.get(recipe.identifier)
            if known is None and recipe.identifier not in under_way:
                trial.set_user_attr(studies.CANDIDATE_ATTRIBUTE, recipe.identifier)
                trial.set_user_attr("recipe", str(recipe))
                return trial, recipe
            trial.set_user_attr("same_as", recipe.identifier)
            if known is not None:
                self._tell(trial, known)
            else:
                under_way[recipe.identifier].same.append(trial)
            duplicates += 1
            if duplicates >= DUPLICATES_BEFORE_RANDOM and not self._enqueue_fresh(under_way):
                return None

    def tell(self, item: UnderWay, candidate: CandidateResult) -> None:
        """What came of a candidate."""
        for trial in (item.trial, *item.same):
            if trial is not None:
                self._tell(trial, candidate)

    def _tell(self, trial: optuna.Trial, candidate: CandidateResult) -> None:
        stopping = self._archive.stopping
        studies.tell(self._study, trial, stopping.told(candidate), stopping.constraints(candidate))

    def _enqueue_fresh(self, under_way: Mapping[str, UnderWay]) -> bool:
        for _ in range(RANDOM_TRIES):
            recipe = self._space.random(self._generator)
            if recipe.identifier not in self._archive.known and recipe.identifier not in under_way:
                self._study.enqueue_trial(self._space.parameters(recipe))
                return True
        return False
