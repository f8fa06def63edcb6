"""The built-in samplers: Optuna's by short names, and one for recipes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.plugin import hookimpl


@contextmanager
def _experimental() -> Iterator[None]:
    """Suppress Optuna's warning that an interface may change: the tests run with the pinned version."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _tpe(seed: int) -> Any:
    """Return a multi-objective tree-structured Parzen estimator (Ozaki et al. 2022), joint over the parameters of a recipe."""
    from optuna.samplers import TPESampler

    with _experimental():  # `group`: without it conditional parameters are sampled independently
        return TPESampler(seed=seed, multivariate=True, group=True)


def _nsga2(seed: int) -> Any:
    """Return NSGA-II (Deb et al. 2002) over the choices of methods; their parameters are drawn at random."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=16)


def _nsga3(seed: int) -> Any:
    """Return NSGA-III (Deb and Jain 2014), for the same parameters as NSGA-II."""
    from optuna.samplers import NSGAIIISampler

    with _experimental():
        return NSGAIIISampler(seed=seed, population_size=16)


def _gp(seed: int) -> Any:
    """Return Gaussian processes with expected hypervolume improvement (Daulton et al. 2020), for up to some hundreds of trials.

    Only the choice of methods, which every recipe has, is modelled; their parameters are drawn at random. It loads torch into the
    main process, which no other sampler does.
    """
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, warn_independent_sampling=False)


def _ehvi(seed: int) -> Any:
    """Return Gaussian processes over whole recipes, by expected improvement of the hypervolume (Emmerich et al. 2006)."""
    from orchestrator_samplers.ehvi import EhviSampler

    return EhviSampler(seed)


def _random(seed: int) -> Any:
    """Return uniform sampling, the control."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


@hookimpl
def orchestrator_samplers() -> dict[str, Any]:
    """Return the samplers by the names that a search file uses."""
    return {"ehvi": _ehvi, "gp": _gp, "nsga2": _nsga2, "nsga3": _nsga3, "random": _random, "tpe": _tpe}
