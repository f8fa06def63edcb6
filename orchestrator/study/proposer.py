"""The proposals of a search: the next recipe, and the results that the study receives."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import optuna

from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.evaluator import BuiltCandidate
from orchestrator.study.distributed.claims import SAME_AS, Claims, Verdict
from orchestrator.study.run import optuna_study
from orchestrator.study.run.optuna_study import CANDIDATE
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult

DUPLICATES_BEFORE_RANDOM = 3
RANDOM_TRIES = 500


class BudgetClaimed(Exception):
    """Other processes have begun all candidates that the budget allows."""


@dataclass(kw_only=True, slots=True)
class PendingCandidate:
    """A candidate between ask and tell.

    Attributes:
        result: Its final record, or its measurement in progress.
        timeout_s: Time that its build was given.
        duplicates: Trials that proposed the same recipe meanwhile: the study receives the same result for them.
        seconds: Time that the main thread has spent on it.
        resumed: Its record so far if it was stopped and continues: it has no trial of its own, for the study has a result.
    """

    recipe: Recipe
    trial: optuna.Trial | None
    timeout_s: float
    result: CandidateResult | BuiltCandidate | None = None
    duplicates: list[optuna.Trial] = field(default_factory=list)
    seconds: float = 0.0
    resumed: CandidateResult | None = None


class Proposer:
    """Source of new recipes.

    Args:
        generator: For recipes that are drawn at random if the sampler only repeats itself.
        claims: Claims of this process, if other processes use the same study.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        archive: Archive,
        generator: np.random.Generator,
        claims: Claims | None = None,
    ) -> None:
        self._study, self._space, self._archive, self._generator = study, space, archive, generator
        self._claims, self._claimed_elsewhere = claims, set[str]()

    def ask(self, pending: Mapping[str, PendingCandidate]) -> tuple[optuna.Trial, Recipe] | None:
        """Return a trial with a new recipe, or None if every recipe was tried.

        The study receives the result of a known recipe again, so that the sampler learns from it; that of a pending one later.

        Raises:
            BudgetClaimed: Other processes have begun all candidates that the budget allows.
            Interrupted: The user requested a stop.
        """
        duplicates = 0
        while True:
            try:
                proposal = self._ask_once(pending)
            except optuna.exceptions.UpdateFinishedTrialError:
                if self._claims is None:
                    raise
                continue  # this process was silent for so long that another one considered it dead
            if proposal is not None:
                return proposal
            duplicates += 1
            if duplicates >= DUPLICATES_BEFORE_RANDOM and not self._enqueue_random(pending):
                return None

    def _ask_once(self, pending: Mapping[str, PendingCandidate]) -> tuple[optuna.Trial, Recipe] | None:
        """Return a trial whose recipe is new, or None."""
        trial = self._study.ask()
        if self._claims is not None:
            self._claims.sign(trial)
        recipe = self._space.suggest(trial)
        known = self._archive.known.get(recipe.identifier)
        if known is not None and self._claims is not None and self._claims.lost_by_leader(trial):
            self._archive.forget(recipe.identifier)
            known = None
        if known is None and recipe.identifier not in pending:
            trial.set_user_attr("recipe", str(recipe))
            return (trial, recipe) if self._claim(trial, recipe) else None
        trial.set_user_attr(SAME_AS, recipe.identifier)
        if known is not None:
            self._tell(trial, known)
        else:
            pending[recipe.identifier].duplicates.append(trial)
        return None

    def _claim(self, trial: optuna.Trial, recipe: Recipe) -> bool:
        """Return True if this process builds the candidate, and False if another one does."""
        if self._claims is None:
            trial.set_user_attr(CANDIDATE, recipe.identifier)
            return True
        verdict = self._claims.claim(trial, recipe.identifier)
        if verdict is Verdict.GRANTED:
            return True
        if verdict is Verdict.DUPLICATE:
            self._claimed_elsewhere.add(recipe.identifier)
            trial.set_user_attr(SAME_AS, recipe.identifier)
        optuna_study.fail(self._study, trial.number)
        if verdict is Verdict.OVER_BUDGET:
            raise BudgetClaimed
        return False

    def tell(self, item: PendingCandidate, candidate: CandidateResult) -> None:
        """Give the study the result of a candidate and of its duplicates."""
        for trial in (item.trial, *item.duplicates):
            if trial is not None:
                self._tell(trial, candidate)

    def _tell(self, trial: optuna.Trial, candidate: CandidateResult) -> None:
        # In a shared study another process may have considered this one dead, and ended the trial.
        with suppress(*(() if self._claims is None else optuna_study.ENDED)):
            optuna_study.tell(self._study, trial, candidate, self._archive.stopping)

    def _enqueue_random(self, pending: Mapping[str, PendingCandidate]) -> bool:
        for _ in range(RANDOM_TRIES):
            recipe = self._space.random(self._generator)
            identifier = recipe.identifier
            if identifier not in self._archive.known and identifier not in pending and identifier not in self._claimed_elsewhere:
                attributes = None if self._claims is None else {CANDIDATE: identifier}
                self._study.enqueue_trial(self._space.parameters(recipe), user_attrs=attributes)
                return True
        return False
