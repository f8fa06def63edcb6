"""Latency on a board, and ratios of two models, from the counts of a simulated execution and the board's constants.

    cycles = a * pipeline cycles + b * first-level misses + c * second-level misses

with a, b, c >= 0 fitted to published times of that board (`bench/simulation.py`): what the pipeline model leaves out (fetch,
branches, dependences between blocks) is in a, what a miss costs beyond what is hidden behind other work in b and c.
"""

import math

from orchestrator.errors import InputError, ProfileError
from orchestrator.values.evidence import Estimate
from orchestrator.values.profile import NumberFormat, SimulationModel
from orchestrator_qemu.counts import VERSION, Counts

# How much less sure a number format is that the constants were not held against: our judgement.
_OTHER_FORMAT = 1.5


def cycles(counts: Counts, model: SimulationModel) -> float:
    """Return the cycles of one inference on one thread.

    Raises:
        ProfileError: the constants make it nothing.
    """
    total = sum(_shares(counts, model).values())
    if not total > 0:
        raise ProfileError(f"the simulation constants of '{model.runtime}' make {counts.instructions} instructions cost nothing")
    return total


def latency(counts: Counts, model: SimulationModel, *, clock_hz: float, threads: int, number_format: NumberFormat) -> Estimate:
    """Return the latency of one inference in ms, with the band of the constants.

    Args:
        counts: Of the model in the runtime of `model`, on its CPU.
        model: The board's constants.
        clock_hz: Of the cluster that the constants name.
        threads: Threads of the inference. Beyond the last speed-up that is known more bring nothing, and the band widens
            by what they could bring at best.
        number_format: The arithmetic that most of the work is done in: it has a band of its own.

    Raises:
        InputError: no positive clock or number of threads.
    """
    if threads < 1 or not clock_hz > 0:
        raise InputError(f"threads and clock_hz must be positive, but got threads={threads}, clock_hz={clock_hz}")
    known = min(threads, len(model.thread_speedup) + 1)
    speedup = model.thread_speedup[known - 2] if known > 1 else 1.0
    errors = [model.error.get(number_format, max(model.error.values()))]
    unknown = []
    if number_format not in model.error:
        errors.append(_OTHER_FORMAT)
        unknown.append(f"{number_format} arithmetic")
    if threads > 1:
        errors.append(model.thread_error)
    if threads > known:
        errors.append(threads / known)
        unknown.append(f"speed-up of more than {known} threads")
    band = _together(errors)
    value = cycles(counts, model) / clock_hz / speedup * 1e3
    return Estimate(
        unit="ms",
        value=value,
        low=value / band,
        high=value * band,
        model=f"simulated execution on {model.cpu}, model {VERSION}",
        unknown=tuple(unknown),
    )


def ratio(a: Counts, b: Counts, model: SimulationModel, *, threads: int = 1) -> tuple[float, float, float]:
    """Return the ratio of the latencies of `a` and `b`: value, low, high.

    What both execute alike has the same error in both and cancels; the rest is as uncertain as ratios of unlike networks.
    So the band's half-width is `ratio_error` to the power of the share of the work that they do not have in common: two
    equal counts have the ratio 1 exactly, two networks without a kernel in common the full band. (On published times the
    errors of ratios do grow like this: docs/simulation.md.) The counts themselves have no noise.
    With several threads the speed-up differs from network to network: its error comes on top, once for each of the two.
    """
    value = cycles(a, model) / cycles(b, model)
    errors = [model.ratio_error, *([model.thread_error] * 2 if threads > 1 else [])]
    band = math.pow(_together(errors), unlike(a, b, model))
    return value, value / band, value * band


def unlike(a: Counts, b: Counts, model: SimulationModel) -> float:
    """Return the share of the longer one's cycles that the other lacks, from 0 (the same work) to 1."""
    first, second = _shares(a, model), _shares(b, model)
    kinds = first.keys() | second.keys()
    common = math.fsum(min(first.get(kind, 0.0), second.get(kind, 0.0)) for kind in kinds)
    longest = max(math.fsum(first.values()), math.fsum(second.values()))
    return 1 - common / longest if common < longest else 0.0


def _shares(counts: Counts, model: SimulationModel) -> dict[str, float]:
    """Return the cycles of misses and of each kernel."""
    pipeline = model.cycles.get("pipeline", 0.0)
    return {
        "l1_miss": model.cycles.get("l1_miss", 0.0) * counts.l1_misses,
        "l2_miss": model.cycles.get("l2_miss", 0.0) * counts.l2_misses,
        **{kernel: pipeline * spent for kernel, spent in sorted(counts.kernels.items())},
    }


def _together(errors: list[float]) -> float:
    """Return the combined half-width of independent factors."""
    return math.exp(math.sqrt(sum(math.log(error) ** 2 for error in errors)))
