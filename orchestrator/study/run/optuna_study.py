"""The Optuna study: one file in the run directory, or a storage that the user names."""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.study.run.optuna_journal import RunJournal
from orchestrator.study.run.optuna_storage import guarded, open_storage
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult

CANDIDATE_ATTRIBUTE = "candidate"
OBJECTIVES = ("quality", "latency_ms", "size_bytes")


def open_study(path: Path, storage: str | None, sampler: Any, direction: Direction, name: str) -> optuna.Study:
    """The study of a run, made where it is not there yet.

    Args:
        path: The journal file, for a run without a storage of its own.
        storage: A URL as `open_storage` takes it, or None.
        direction: Of the quality; latency and size are minimised.

    Raises:
        InputError, EnvironmentFailure: the storage cannot be opened.
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


def settle(
    study: optuna.Study,
    candidates: Mapping[str, CandidateResult],
    told: Mapping[str, CandidateResult | None],
    constraints: Mapping[str, Mapping[str, float]],
) -> tuple[int, list[str]]:
    """After a run was killed: tell trials whose candidate was kept, ask the others again.

    Args:
        candidates: What was kept, by id.
        told: What the sampler learns of each; None: it failed.
        constraints: For each candidate id its constraint values.

    Returns:
        How many were asked again, and whose trials are told only now.
    """
    again, late = 0, []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        identifier = trial.user_attrs.get(CANDIDATE_ATTRIBUTE)
        candidate = candidates.get(identifier) if identifier else None
        if candidate is not None and candidate.trial == trial.number:
            tell(study, trial, told[candidate.id], constraints.get(candidate.id, {}))
            late.append(candidate.id)
            continue
        asked = _asked(trial)
        if asked:
            study.enqueue_trial(asked, skip_if_exists=False)  # first: a process killed between the two loses none
            again += 1
        study.tell(trial.number, state=TrialState.FAIL)
    return again, late


def ask_first(study: optuna.Study, wanted: Sequence[dict[str, Any]]) -> None:
    """Let the next trials have these parameters, ahead of all that wait already."""
    waiting = [_asked(trial) for trial in study.get_trials(deepcopy=True, states=(TrialState.WAITING,))]
    once = {json.dumps(parameters, sort_keys=True): parameters for parameters in (*wanted, *waiting)}  # after a kill here: twice
    for parameters in once.values():
        study.enqueue_trial(parameters, skip_if_exists=False)
    for _ in waiting:  # Optuna takes them in the order of their numbers: these come first, and they wait again behind ours
        study.tell(study.ask(), state=TrialState.FAIL)


def _asked(trial: FrozenTrial) -> dict[str, Any]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # killed before the first suggestion: the former


def tell(
    study: optuna.Study,
    trial: "optuna.Trial | FrozenTrial",
    candidate: CandidateResult | None,
    constraints: Mapping[str, float],
) -> None:
    """Tell Optuna what came of a trial: its objectives and constraints, or that it failed.

    One that broke a limit before it was built has constraints and no objectives: as a pruned trial it teaches samplers that.
    """
    live = trial if isinstance(trial, optuna.Trial) else optuna.Trial(study, trial._trial_id)
    for key, value in constraints.items():
        live.set_constraint(key, value)
    state, values = outcome(candidate, constraints)
    study.tell(trial.number, values, state=None if values else state)


def outcome(candidate: CandidateResult | None, constraints: Mapping[str, float]) -> tuple[TrialState, list[float] | None]:
    """How a trial ends whose candidate has these figures, and its objectives where it has any."""
    if candidate is None or candidate.quality is None or candidate.artifact is None:
        return (TrialState.PRUNED if constraints else TrialState.FAIL), None
    values = [candidate.quality.validation.value, candidate.latency[0].median_ms, float(candidate.artifact.size_bytes)]
    return TrialState.COMPLETE, values
