"""The built-in samplers: Optuna's, by short names."""

import warnings
from typing import Any

from orchestrator.plugin import hookimpl


def _tpe(seed: int) -> Any:
    """Multi-objective tree-structured Parzen estimator (Ozaki et al. 2022), joint over the parameters of a recipe."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`: without it conditional parameters are drawn alone
        return TPESampler(seed=seed, multivariate=True, group=True)


def _nsga2(seed: int) -> Any:
    """NSGA-II (Deb et al. 2002)."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=16)


def _random(seed: int) -> Any:
    """Uniform, the control."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


@hookimpl
def orchestrator_samplers() -> dict[str, Any]:
    """tpe, nsga2, random."""
    return {"tpe": _tpe, "nsga2": _nsga2, "random": _random}
