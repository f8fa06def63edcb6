"""Fit of a latency model to measured times, with a prior from other machines because few networks determine many constants.

The latency is a sum over features, each amount times its constant. The logarithms of the constants have a normal prior, which
bench/fit_profiles.py derives from published times of many boards (prior.toml): its mean depends on the kind of core, the
number format and the threads. The overall speed of the machine is free. The posterior's maximum is found by Gauss-Newton
steps on the logarithm of the latency, so that the constants are positive and errors are relative; outliers weigh less (Huber).
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp, log, log2
from typing import Any

import numpy as np

from orchestrator.errors import InputError
from orchestrator.hardware.features import UNITS, features
from orchestrator.hardware.graph import GraphCount
from orchestrator.values.profile import LatencyModel, NumberFormat

LEAST_OBSERVATIONS = 5
_SPEED = 1.5  # Standard deviation of the logarithm of a machine's speed as a whole: unknown within a factor of twenty.
_NOISE = 0.05  # Standard deviation of the logarithm of one time that the model could explain: what is left of a careful timing.
_OTHER_RUNTIME = log(2)
_HUBER = 3.0
_NORMAL_90 = 1.645  # 90 % of a normal distribution lies within this many standard deviations.


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """Properties of a core that the prior depends on.

    Attributes:
        clock_hz: Its clock, or None if unknown.
        in_order: True if it issues instructions in program order (Cortex-A7, A53, A55).
        half: True if it computes in float16 (Armv8.2 asimdhp); also set for wider cores since 2017, such as x86 cores with
            AVX2.
        dot: True if it has instructions for products of 8-bit integers (asimddp, AVX-VNNI).
    """

    clock_hz: float | None = None
    in_order: bool = False
    half: bool = False
    dot: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One network and its time for one inference."""

    name: str
    graph: GraphCount
    milliseconds: float


def fit_latency_model(
    observations: Sequence[Observation],
    *,
    runtime: str,
    number_format: NumberFormat,
    threads: int,
    core: Core,
    fitted_on: str,
    source: str,
) -> LatencyModel:
    """Fit the constants of one machine, runtime, number format and number of threads.

    The error comes from leaving each observation out once. It is no smaller than the error of published networks
    (prior.toml): times of small test networks alone would underestimate it.

    Args:
        observations: Networks whose arithmetic is in `number_format`, timed with that many threads.
        core: The kind of core of the prior.
        runtime: The runtime.
        number_format: The number format.
        threads: Threads of one inference.
        fitted_on: Description of the times, shown with every estimate.
        source: Name of the source in the profile.

    Raises:
        InputError: There are fewer than five observations, or one is not positive.
    """
    if len(observations) < LEAST_OBSERVATIONS:
        raise InputError(f"a latency model needs at least {LEAST_OBSERVATIONS} timed networks, but got {len(observations)}")
    for observation in observations:
        if not 0 < observation.milliseconds < float("inf"):
            raise InputError(f"the time of '{observation.name}' must be positive, but got {observation.milliseconds} ms")
    amounts = np.array([amounts_of(o.graph, number_format, runtime) for o in observations])
    times = np.log([o.milliseconds * 1e6 for o in observations])
    mean, deviation = prior(runtime, number_format, threads, core)
    constants = _posterior(amounts, times, mean, deviation)
    left_out = np.array(
        [
            times[i] - log(float(amounts[i] @ np.exp(_posterior(np.delete(amounts, i, 0), np.delete(times, i), mean, deviation))))
            for i in range(len(times))
        ]
    )
    spread = 1.483 * float(np.median(np.abs(left_out)))  # the standard deviation of a normal distribution, outliers aside
    return LatencyModel(
        runtime=runtime,
        number_format=number_format,
        threads=threads,
        nanoseconds={name: rounded(exp(value)) for name, value in zip(UNITS, constants, strict=True)},
        error=round(max(exp(_NORMAL_90 * spread), least_error()), 2),
        mean_error=round(float(np.mean(np.abs(np.expm1(-left_out)))), 3),
        fitted_on=fitted_on,
        source=source,
    )


def least_error() -> float:
    """Return the narrowest 90 % band of a model, as a factor, by networks left out on published boards."""
    return exp(_NORMAL_90 * float(_prior_file()["model_error"]))


def amounts_of(graph: GraphCount, number_format: NumberFormat, runtime: str) -> list[float]:
    """Return the amount of every feature in a graph, in the order of UNITS, with all arithmetic in one format."""
    totals = dict.fromkeys(UNITS, 0.0)
    for operator in graph.operators:
        for name, amount in features(operator, number_format, runtime).items():
            totals[name] += amount
    return list(totals.values())


def rounded(value: float) -> float:
    """Round to four significant digits, as in profiles."""
    return float(f"{value:.4g}")


def covariates(number_format: NumberFormat, threads: int, core: Core) -> dict[str, float]:
    """Return the covariates of the prior's mean, by the names of prior.toml."""
    int8 = number_format == "int8"
    return {
        "one": 1.0,
        "log2_threads": log2(threads),
        "in_order": float(core.in_order),
        "recent": float(core.half),
        "half": float(number_format in ("float16", "bfloat16")),
        "int8": float(int8),
        "int8_dot": float(int8 and core.dot),
    }


def prior(runtime: str, number_format: NumberFormat, threads: int, core: Core) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the logarithm of each constant (nanoseconds a unit), in the order of UNITS.

    The published times are of one runtime; the kernels of another may differ twofold from it in any single feature.
    """
    file = _prior_file()
    known = covariates(number_format, threads, core)
    mean = np.zeros(len(UNITS))
    for covariate, slopes in file["mean"].items():
        mean += known[covariate] * np.array([slopes.get(name, 0.0) for name in UNITS])
    mean -= log((core.clock_hz or file["clock_hz"]) / 1e9)
    deviation = np.array([file["deviation"][name] for name in UNITS])
    return mean, deviation if runtime == file["runtime"] else np.maximum(deviation, _OTHER_RUNTIME)


@cache
def _prior_file() -> Mapping[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("prior.toml").read_text(encoding="utf-8"))


def _posterior(amounts: np.ndarray, times: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return the most probable logarithms of the constants.

    Args:
        amounts: One row a network, one column a feature.
        times: Logarithms of nanoseconds.
        mean: Mean of the prior.
        deviation: Standard deviation of the prior.
    """
    covariance = np.diag(deviation**2) + _SPEED**2
    constants, weights = mean.copy(), np.ones(len(times))
    for step in range(30):
        parts = amounts * np.exp(constants)
        total = parts.sum(axis=1)
        shares = parts / total[:, None]
        target = times - np.log(total) + shares @ (constants - mean)
        noise = _NOISE**2 / weights
        solved = np.linalg.solve(shares @ covariance @ shares.T + np.diag(noise), target)
        change = mean + covariance @ shares.T @ solved - constants
        constants = constants + np.clip(change, -1.0, 1.0)
        if step > 1:  # the first steps find the speed: until then every time looks like an outlier
            weights = np.minimum(1.0, _HUBER * _NOISE / np.maximum(np.abs(noise * solved), 1e-12))
        if step > 3 and float(np.abs(change).max()) < 1e-3:
            break
    return constants
