"""The Optuna study of a run: one file in the run directory, or a storage that the user names."""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.study.run.optuna_journal import RunJournal
from orchestrator.study.run.optuna_storage import guarded, open_storage
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult

CANDIDATE = "candidate"
"""User attribute of a trial: the id of its recipe."""
OBJECTIVES = ("quality", "latency_ms", "size_bytes")
ENDED = (ValueError, optuna.exceptions.UpdateFinishedTrialError)
"""Errors of Optuna for a trial that another process has ended."""


class SamplerView(Protocol):
    """What a sampler learns of candidates, see `EarlyStopping`."""

    def for_sampler(self, candidate: CandidateResult) -> CandidateResult | None:
        """Return the candidate with the values that the sampler learns, or None if it has none."""

    def constraints(self, candidate: CandidateResult) -> Mapping[str, float]:
        """Return by how much the candidate violates each limit; zero or less if it is satisfied."""


def open_study(path: Path, storage: str | None, sampler: Any, direction: Direction, name: str) -> optuna.Study:
    """Return the study of a run, created if it does not exist yet.

    Args:
        path: The journal file of a run without a storage of its own.
        storage: A URL for `open_storage`, or None.
        sampler: An Optuna sampler.
        direction: Of the quality; latency and size are minimised.
        name: Name of the study.

    Raises:
        InputError, EnvironmentFailure: The storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend: BaseStorage = JournalStorage(RunJournal(path)) if storage is None else open_storage(storage)
    with nullcontext() if storage is None else guarded(storage), warnings.catch_warnings():
        study = optuna.create_study(
            study_name=name,
            storage=backend,
            sampler=sampler,
            directions=[direction.value, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE],
            load_if_exists=True,
        )
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(OBJECTIVES))
    return study


def tell(study: optuna.Study, trial: "optuna.Trial | FrozenTrial", candidate: CandidateResult, view: SamplerView) -> None:
    """Give Optuna the result of a trial: its objectives and constraints, or its failure.

    A candidate that violated a limit before it was built has constraints and no objectives: samplers learn them from a pruned
    trial.
    """
    constraints = view.constraints(candidate)
    live = trial if isinstance(trial, optuna.Trial) else optuna.Trial(study, trial._trial_id)
    for key, value in constraints.items():
        live.set_constraint(key, value)
    state, values = outcome(view.for_sampler(candidate), constraints)
    study.tell(trial.number, values, state=None if values else state)


def fail(study: optuna.Study, number: int) -> bool:
    """Mark a trial as failed; return False if it has ended already."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except ENDED:
        return False
    return True


def outcome(candidate: CandidateResult | None, constraints: Mapping[str, float]) -> tuple[TrialState, list[float] | None]:
    """Return the final state of a trial and its objectives, if its candidate has any."""
    if candidate is None or candidate.quality is None or candidate.artifact is None:
        return (TrialState.PRUNED if constraints else TrialState.FAIL), None
    values = [candidate.quality.validation.value, candidate.latency[0].median_ms, float(candidate.artifact.size_bytes)]
    return TrialState.COMPLETE, values


def proposed_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial, also of one that was killed before the first suggestion."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
