"""Constants of a profile for one runtime, number format and number of threads, or derived from its nearest ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt

from orchestrator.errors import InputError
from orchestrator.values.profile import HardwareProfile, LatencyModel, NumberFormat

# The widening of the band for another number of threads, as a factor, and the serial share of Amdahl's law if the profile has one
# number of threads only. Both are our judgement: on boards with published times for 1, 2, 4, 8 and 12 threads the step from one
# count to the next differs between networks by a quarter, and about a fifth of the time of one thread is left with many.
BETWEEN, BEYOND, ALONE = 1.15, 1.3, 1.6
SERIAL_SHARE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Constants:
    """The constants of one number format for a number of threads.

    Attributes:
        nanoseconds: Cost of one unit of each feature.
        error: Half-width of the 90 % band, as a factor.
        note: Assumptions, or None if the profile has this table.
        least_macs: Multiply-accumulates of the smallest network of the fit; 0 if irrelevant.
    """

    nanoseconds: Mapping[str, float]
    error: float
    fitted_on: str
    note: str | None = None
    least_macs: int = 0


def constants(profile: HardwareProfile, runtime: str, number_format: NumberFormat, threads: int) -> Constants | None:
    """Return the constants for one number format, or None if the profile has none for it.

    Raises:
        InputError: The profile has no latency model for this runtime at all, or `threads` is not positive.
    """
    if threads < 1:
        raise InputError(f"threads >= 1 must hold, but got {threads}")
    tables = [m for m in profile.latency_models if m.runtime == runtime]
    if not tables:
        raise InputError(
            f"profile '{profile.name}' has no latency model for the runtime '{runtime}', so nothing can be estimated; "
            f"it has: {described(profile.latency_models)}"
        )
    known = sorted((m for m in tables if m.number_format == number_format), key=lambda m: m.threads)
    if profile.kind == "gpu":  # it counts as one thread
        threads = 1
    exact = next((m for m in known if m.threads == threads), None)
    if exact is not None:
        least = exact.least_macs or 0
        return Constants(nanoseconds=exact.nanoseconds, error=exact.error, fitted_on=exact.fitted_on, least_macs=least)
    return _of_neighbours(known, threads) if known else None


def combined(*factors: float) -> float:
    """Combine independent factors of error: their logarithms in quadrature."""
    return exp(sqrt(sum(log(factor) ** 2 for factor in factors)))


def described(models: Sequence[LatencyModel]) -> str:
    """Return the list of a profile's latency models as text."""
    by_runtime: dict[str, list[NumberFormat]] = {}
    for model in models:
        formats = by_runtime.setdefault(model.runtime, [])
        if model.number_format not in formats:
            formats.append(model.number_format)
    return "; ".join(f"{runtime} ({', '.join(formats)})" for runtime, formats in by_runtime.items()) or "none"


def _of_neighbours(known: Sequence[LatencyModel], threads: int) -> Constants:
    """Apply Amdahl's law (AFIPS Conference Proceedings 30, 1967) by feature, through the two nearest numbers of threads."""
    counts = [m.threads for m in known]
    if len(known) == 1:
        only = known[0]
        many = replace(only, threads=10**9, nanoseconds={k: SERIAL_SHARE * v for k, v in _one_thread(only).items()})
        first, second, wider = only, many, ALONE
        said = f"{only.threads}, by Amdahl's law with a serial share of {SERIAL_SHARE:.0%}"
    else:
        place = min(max(1, sum(count < threads for count in counts)), len(known) - 1)
        first, second = known[place - 1], known[place]
        wider = BETWEEN if counts[0] < threads < counts[-1] else BEYOND
        said = f"{first.threads} and {second.threads}, by Amdahl's law"
    return Constants(
        nanoseconds={
            name: _amdahl(first.threads, cost, second.threads, second.nanoseconds.get(name, cost), threads)
            for name, cost in first.nanoseconds.items()
        },
        error=combined(max(first.error, second.error), wider),
        fitted_on=first.fitted_on,
        note=f"the profile has no constants for {threads} threads: they follow from those for {said}; the band is wider for it",
        least_macs=max(first.least_macs or 0, second.least_macs or 0),
    )


def _one_thread(model: LatencyModel) -> dict[str, float]:
    """Return the cost of one thread if SERIAL_SHARE of it is serial."""
    left = SERIAL_SHARE + (1 - SERIAL_SHARE) / model.threads
    return {name: cost / left for name, cost in model.nanoseconds.items()}


def _amdahl(few: int, cost_few: float, many: int, cost_many: float, threads: int) -> float:
    """Solve cost = serial + shared / threads through two points; neither part is negative."""
    shared = (cost_few - cost_many) / (1 / few - 1 / many)
    serial = cost_few - shared / few
    if serial < 0:  # more threads gain more than their number: their caches add up
        return cost_many * many / threads if threads > many else cost_few * few / threads
    return max(serial + shared / threads, 0.0)
