"""The built-in samplers: Optuna's, by short names, and one of our own for recipes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.plugin import hookimpl


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna's notice that an interface may change: the tests run with the version that is pinned."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _tpe(seed: int) -> Any:
    """Multi-objective tree-structured Parzen estimator (Ozaki et al. 2022), joint over the parameters of a recipe."""
    from optuna.samplers import TPESampler

    with _experimental():  # `group`: without it conditional parameters are drawn alone
        return TPESampler(seed=seed, multivariate=True, group=True)


def _nsga2(seed: int) -> Any:
    """NSGA-II (Deb et al. 2002) over the choices of methods; their parameters are drawn by chance."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=16)


def _nsga3(seed: int) -> Any:
    """NSGA-III (Deb and Jain 2014), for the same parameters as NSGA-II."""
    from optuna.samplers import NSGAIIISampler

    with _experimental():
        return NSGAIIISampler(seed=seed, population_size=16)


def _gp(seed: int) -> Any:
    """Gaussian processes with expected hypervolume improvement (Daulton et al. 2020), for up to some hundreds of trials.

    Only what every recipe has, the choice of methods, is modelled; their parameters are drawn by chance. It loads torch into the
    main process, which no other sampler does.
    """
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, warn_independent_sampling=False)


def _ehvi(seed: int) -> Any:
    """Gaussian processes over whole recipes, by expected improvement of the hypervolume (Emmerich et al. 2006)."""
    from orchestrator_samplers.ehvi import EhviSampler

    return EhviSampler(seed)


def _random(seed: int) -> Any:
    """Uniform, the control."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


@hookimpl
def orchestrator_samplers() -> dict[str, Any]:
    """By the names that a search file uses."""
    return {"ehvi": _ehvi, "gp": _gp, "nsga2": _nsga2, "nsga3": _nsga3, "random": _random, "tpe": _tpe}
