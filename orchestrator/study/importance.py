"""Which parameters of the search space mattered: Optuna's PED-ANOVA over the complete candidates."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from orchestrator.study.pareto.dominance import relative_latency
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, Importance, ParameterImportance

LEAST_TRIALS = 20
"""Fewer say nothing: the evaluator wants five trials at least among the best, and those must be few beside the others."""
LEAST_BEST = 5
BEST_SHARE = 0.1
SHUFFLES = 19
"""Where a parameter does not matter, its own importance is the largest of this and the dealt ones by chance in just one of twenty
cases. Each takes some 30 ms with 30 trials of 20 parameters."""


def importance(candidates: Sequence[CandidateResult], space: SearchSpace, direction: Direction) -> Importance:
    """Importance of each parameter for being among the best in quality, and in latency (Watanabe et al. 2023).

    It rests on the trials as they were asked for, so a parameter that the sampler soon fixed looks unimportant. What chance alone
    gives is found by dealing the same figures out to the candidates at random: the most that a parameter then has is passed in
    one of twenty cases by one that does not matter.

    Args:
        candidates: In any state; the complete ones that this space holds are looked at.
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
    """The complete candidates as Optuna's trials, with the distributions of the space."""
    found = []
    for candidate in candidates:
        if candidate.state != "complete" or candidate.quality is None or not candidate.latency:
            continue
        recipe = Recipe.from_json(
            [{"method": s.method, "version": s.version, "parameters": s.parameters} for s in candidate.recipe]
        )
        if not space.holds(recipe):
            continue
        asked = FixedTrial(dict(space.parameters(recipe)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space.suggest(asked)
        values = [candidate.quality.validation.value, relative_latency(candidate)]
        found.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE, params=asked.params, distributions=asked.distributions, values=values
            )
        )
    return found


def _ranked(trials: Sequence[FrozenTrial], figures: np.ndarray, share: float) -> list[ParameterImportance]:
    """Importance by parameter, the largest first; nothing where all figures are the same."""
    if figures.min() == figures.max():
        return []
    generator = np.random.default_rng(0)
    found = _evaluated(trials, figures, share)
    dealt = [_evaluated(trials, generator.permutation(figures), share) for _ in range(SHUFFLES)]
    return [
        ParameterImportance(parameter=name, value=value, chance=max(other.get(name, 0.0) for other in dealt))
        for name, value in found.items()
    ]


def _evaluated(trials: Sequence[FrozenTrial], figures: np.ndarray, share: float) -> dict[str, float]:
    """A lower figure is a better one."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn, a second

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for trial, figure in zip(trials, figures, strict=True):
            study.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=float(figure))
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of conditional parameters that few trials have
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    finally:
        optuna.logging.set_verbosity(verbosity)
