"""The questions of a search: which recipe is tried next, and what is told to the study of those that come twice."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import optuna

from orchestrator.study.archive import Archive
from orchestrator.study.candidates.evaluator import Built
from orchestrator.study.distributed.claims import CANDIDATE, SAME_AS, Claims, fail
from orchestrator.study.run import optuna_study as studies
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult

DUPLICATES_BEFORE_RANDOM = 3
RANDOM_TRIES = 500


class Beyond(Exception):
    """Other processes have begun all that the budget allows."""


@dataclass(kw_only=True, slots=True)
class PendingCandidates:
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


class Proposer:
    """Asks the study.

    Args:
        generator: For recipes drawn by ourselves, where the sampler only repeats itself.
        claims: Where other processes ask the same study.
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
        self._claims, self._taken = claims, set[str]()

    def ask(self, under_way: Mapping[str, PendingCandidates]) -> tuple[optuna.Trial, Recipe] | None:
        """A trial whose recipe is new; None where every recipe was tried.

        What is known is told again as it was, so that the sampler learns from it; what is under way will be.

        Raises:
            Beyond: other processes have begun all that the budget allows.
            Interrupted: the user asked to stop.
        """
        duplicates = 0
        while True:
            try:
                found = self._ask_once(under_way)
            except optuna.exceptions.UpdateFinishedTrialError:
                if self._claims is None:
                    raise
                continue  # this process was silent for so long that another one took it for dead
            if found is not None:
                return found
            duplicates += 1
            if duplicates >= DUPLICATES_BEFORE_RANDOM and not self._enqueue_fresh(under_way):
                return None

    def _ask_once(self, under_way: Mapping[str, PendingCandidates]) -> tuple[optuna.Trial, Recipe] | None:
        """A trial whose recipe is new; None where it is not."""
        trial = self._study.ask()
        if self._claims is not None:
            self._claims.own(trial)
        recipe = self._space.suggest(trial)
        known = self._archive.known.get(recipe.identifier)
        if known is not None and self._claims is not None and self._claims.anew(trial):
            self._archive.forget(recipe.identifier)
            known = None
        if known is None and recipe.identifier not in under_way:
            trial.set_user_attr("recipe", str(recipe))
            return (trial, recipe) if self._is_ours(trial, recipe) else None
        trial.set_user_attr(SAME_AS, recipe.identifier)
        if known is not None:
            self._tell(trial, known)
        else:
            under_way[recipe.identifier].same.append(trial)
        return None

    def _is_ours(self, trial: optuna.Trial, recipe: Recipe) -> bool:
        """Whether this process makes the candidate; another one has it, where not."""
        if self._claims is None:
            trial.set_user_attr(CANDIDATE, recipe.identifier)
            return True
        verdict = self._claims.claim(trial, recipe.identifier)
        if verdict == "ours":
            return True
        if verdict == "taken":
            self._taken.add(recipe.identifier)
            trial.set_user_attr(SAME_AS, recipe.identifier)
        fail(self._study, trial.number)
        if verdict == "beyond":
            raise Beyond
        return False

    def tell(self, item: PendingCandidates, candidate: CandidateResult) -> None:
        """What came of a candidate."""
        for trial in (item.trial, *item.same):
            if trial is not None:
                self._tell(trial, candidate)

    def _tell(self, trial: optuna.Trial, candidate: CandidateResult) -> None:
        stopping = self._archive.stopping
        # Where the study is shared, another process may have taken this one for dead, and ended the trial.
        ended = () if self._claims is None else (ValueError, optuna.exceptions.UpdateFinishedTrialError)
        with suppress(*ended):
            studies.tell(self._study, trial, stopping.told(candidate), stopping.constraints(candidate))

    def _enqueue_fresh(self, under_way: Mapping[str, PendingCandidates]) -> bool:
        for _ in range(RANDOM_TRIES):
            recipe = self._space.random(self._generator)
            identifier = recipe.identifier
            if identifier not in self._archive.known and identifier not in under_way and identifier not in self._taken:
                declared = None if self._claims is None else {CANDIDATE: identifier}
                self._study.enqueue_trial(self._space.parameters(recipe), user_attrs=declared)
                return True
        return False
