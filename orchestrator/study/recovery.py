"""Recovery of a run's study: trials that it lost, trials that were running, candidates whose device was lost."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.evaluator import DEVICE
from orchestrator.study.run.optuna_study import CANDIDATE, SamplerView, fail, outcome, proposed_parameters, tell
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.results import CandidateResult


def restore(study: optuna.Study, space: SearchSpace, candidates: Iterable[CandidateResult], view: SamplerView) -> int:
    """Add the trials of candidates that the study does not hold, under their old numbers if those are free.

    A study loses trials if its journal was deleted, or cut off by a loss of power.

    Returns:
        The number of trials that were added.
    """
    trials = study.get_trials(deepcopy=False)
    held = {trial.user_attrs.get(CANDIDATE) for trial in trials}
    lost = sorted((c for c in candidates if c.trial is not None and c.id not in held), key=lambda c: c.trial or 0)
    count = len(trials)
    for candidate in lost:
        while count < (candidate.trial or 0):
            study.add_trial(create_trial(state=TrialState.FAIL))  # of a duplicate: numbers stay as they were
            count += 1
        study.add_trial(_trial(space, candidate, view))
        count += 1
    return len(lost)


def _trial(space: SearchSpace, candidate: CandidateResult, view: SamplerView) -> FrozenTrial:
    recipe, constraints = candidate.as_recipe(), view.constraints(candidate)
    fixed = FixedTrial(space.parameters(recipe))
    space.suggest(fixed)
    state, values = outcome(view.for_sampler(candidate), constraints)
    return create_trial(
        state=state,
        values=values,
        params=fixed.params,
        distributions=fixed.distributions,
        user_attrs={CANDIDATE: candidate.id, "recipe": str(recipe)},
        constraints=dict(constraints),
    )


def settle(study: optuna.Study, known: Mapping[str, CandidateResult], view: SamplerView) -> tuple[int, list[str]]:
    """End the trials that a killed process left: those of kept candidates get their result, the others are enqueued again.

    Returns:
        The number of trials that were enqueued, and the candidates whose trials have a result only now.
    """
    enqueued, late = 0, []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        candidate = known.get(trial.user_attrs.get(CANDIDATE, ""))
        if candidate is not None and candidate.trial == trial.number:
            tell(study, trial, candidate, view)
            late.append(candidate.id)
            continue
        if parameters := proposed_parameters(trial):
            study.enqueue_trial(parameters, skip_if_exists=False)  # first: a kill between the two loses none
            enqueued += 1
        fail(study, trial.number)
    return enqueued, late


def repeat_lost(study: optuna.Study, space: SearchSpace, archive: Archive) -> int:
    """Propose candidates again whose device was lost: nothing is wrong with them. Return their number."""
    lost = [c for c in archive.candidates if c.failure is not None and c.failure.step == DEVICE]
    if lost:
        enqueue_first(study, [space.parameters(c.as_recipe()) for c in lost])  # before they are forgotten: a kill loses none
    for candidate in lost:
        archive.forget(candidate.id)
    return len(lost)


def enqueue_first(study: optuna.Study, parameters: Sequence[dict[str, Any]]) -> None:
    """Enqueue trials with these parameters ahead of all that wait already."""
    waiting = [proposed_parameters(trial) for trial in study.get_trials(deepcopy=True, states=(TrialState.WAITING,))]
    unique = {json.dumps(values, sort_keys=True): values for values in (*parameters, *waiting)}  # a kill leaves some twice
    for values in unique.values():
        study.enqueue_trial(values, skip_if_exists=False)
    for _ in waiting:  # Optuna starts trials in the order of their numbers: these are repeated behind the new ones
        study.tell(study.ask(), state=TrialState.FAIL)
