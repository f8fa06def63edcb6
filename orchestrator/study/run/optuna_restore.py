"""A study that lost trials (its journal was deleted, or cut off by a loss of power) gets them back from the records."""

from collections.abc import Iterable, Mapping

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from orchestrator.study.run.optuna_study import CANDIDATE_ATTRIBUTE, outcome
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult


def restore(
    study: optuna.Study,
    space: SearchSpace,
    candidates: Iterable[CandidateResult],
    told: Mapping[str, CandidateResult | None],
    constraints: Mapping[str, Mapping[str, float]],
) -> int:
    """Add the trials of candidates that the study does not know, under their old numbers where those are free. Returns how many.

    Args:
        told: What the sampler learns of each, by id; None: it failed.
        constraints: For each candidate id its constraint values.
    """
    trials = study.get_trials(deepcopy=False)
    there = {trial.user_attrs.get(CANDIDATE_ATTRIBUTE) for trial in trials}
    lost = sorted((c for c in candidates if c.trial is not None and c.id not in there), key=lambda c: c.trial or 0)
    count = len(trials)
    for candidate in lost:
        while count < (candidate.trial or 0):
            study.add_trial(create_trial(state=TrialState.FAIL))  # of a recipe that came twice: the numbers stay
            count += 1
        study.add_trial(_trial(space, candidate, told.get(candidate.id), constraints.get(candidate.id, {})))
        count += 1
    return len(lost)


def _trial(
    space: SearchSpace, candidate: CandidateResult, learned: CandidateResult | None, constraints: Mapping[str, float]
) -> FrozenTrial:
    recipe = Recipe.from_json([{"method": s.method, "version": s.version, "parameters": s.parameters} for s in candidate.recipe])
    fixed = FixedTrial(space.parameters(recipe))
    space.suggest(fixed)
    state, values = outcome(learned, constraints)
    return create_trial(
        state=state,
        values=values,
        params=fixed.params,
        distributions=fixed.distributions,
        user_attrs={CANDIDATE_ATTRIBUTE: candidate.id, "recipe": str(recipe)},
        constraints=dict(constraints),
    )
