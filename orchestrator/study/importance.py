"""Importance of the parameters of the search space: Optuna's PED-ANOVA over the complete candidates."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from orchestrator.study.pareto.dominance import relative_latency
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, Importance, ParameterImportance

LEAST_TRIALS = 20
"""The evaluator needs five trials among the best, and those must be few beside the others."""
LEAST_BEST = 5
BEST_SHARE = 0.1
SHUFFLES = 19
"""The importance of a parameter that does not matter exceeds that of all shuffles in one of twenty cases. Each shuffle takes some
30 ms with 30 trials of 20 parameters."""


def importance(candidates: Sequence[CandidateResult], space: SearchSpace, direction: Direction) -> Importance:
    """Return the importance of each parameter for being among the best in quality, and in latency (Watanabe et al. 2023).

    It is computed from the proposed trials, so that a parameter that the sampler soon fixed looks unimportant. The importance by
    chance comes from shuffling the values among the candidates: a parameter that does not matter exceeds the largest importance
    of the shuffles in one of twenty cases.

    Args:
        candidates: In any state; the complete ones that this space holds are used.
        space: The search space of the run.
        direction: Of the quality.
    """
    trials = _trials(candidates, space)
    if len(trials) < LEAST_TRIALS:
        return Importance(trials=len(trials), needed=LEAST_TRIALS)
    best = max(LEAST_BEST, math.ceil(BEST_SHARE * len(trials)))
    quality = np.array([-direction.sign * trial.values[0] for trial in trials])
    latency = np.array([trial.values[1] for trial in trials])
    return Importance(
        trials=len(trials),
        needed=LEAST_TRIALS,
        best=best,
        quality=_ranked(trials, quality, best / len(trials)),
        latency=_ranked(trials, latency, best / len(trials)),
    )


def _trials(candidates: Sequence[CandidateResult], space: SearchSpace) -> list[FrozenTrial]:
    """Return the complete candidates as Optuna's trials, with the distributions of the space."""
    trials = []
    for candidate in candidates:
        if candidate.state != "complete" or candidate.quality is None or not candidate.latency:
            continue
        recipe = candidate.as_recipe()
        if not space.holds(recipe):
            continue
        fixed = FixedTrial(dict(space.parameters(recipe)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space.suggest(fixed)
        values = [candidate.quality.validation.value, relative_latency(candidate)]
        trials.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE, params=fixed.params, distributions=fixed.distributions, values=values
            )
        )
    return trials


def _ranked(trials: Sequence[FrozenTrial], values: np.ndarray, share: float) -> list[ParameterImportance]:
    """Return the importance by parameter, the largest first; empty if all values are equal."""
    if values.min() == values.max():
        return []
    generator = np.random.default_rng(0)
    importances = _evaluated(trials, values, share)
    shuffled = [_evaluated(trials, generator.permutation(values), share) for _ in range(SHUFFLES)]
    return [
        ParameterImportance(parameter=name, value=value, chance=max(other.get(name, 0.0) for other in shuffled))
        for name, value in importances.items()
    ]


def _evaluated(trials: Sequence[FrozenTrial], values: np.ndarray, share: float) -> dict[str, float]:
    """Return the importance by parameter for values of which lower ones are better."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn, a second

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for trial, value in zip(trials, values, strict=True):
            study.add_trial(optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=float(value)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of conditional parameters that few trials have
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    finally:
        optuna.logging.set_verbosity(verbosity)
