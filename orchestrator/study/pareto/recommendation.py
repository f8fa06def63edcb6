"""The recommended model of a front, with the reason in one sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.report import formatting
from orchestrator.study.pareto.constraints import Constraints
from orchestrator.study.pareto.dominance import quality_noise, quality_of, relative_latency, size_of
from orchestrator.values.direction import Direction
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Limits

LIMIT_NAMES = {
    "max_latency": "--max-latency",
    "max_size": "--max-size",
    "max_memory": "--max-memory",
    "max_drop": "--max-drop",
    "min_quality": "--min-quality",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """A recommended candidate's id, or None if none satisfies the limits; and the reason."""

    id: str | None
    reason: str


def recommend(front: Sequence[CandidateResult], constraints: Constraints, *, requested: Limits, metric: str) -> Recommendation:
    """Choose a candidate by the validation split.

    Under limits on latency, size or memory: the most accurate beyond noise, then the fastest. Under limits on quality alone: the
    fastest that satisfies them, preferably beyond doubt. Without limits: the knee. If nothing satisfies the limits: none, with
    the nearest candidate and the limits that would have to be relaxed. Without a limit on quality, models that lose more than
    `constraints.useful_drop` are chosen only if there are no others.

    Args:
        front: The front, the fastest first.
        constraints: All limits that must be satisfied.
        requested: The limits that the user gave, which select the rule.
        metric: Name of the quality metric.
    """
    baseline, direction, drop = constraints.baseline, constraints.direction, constraints.useful_drop
    able = [c for c in front if constraints.satisfied(c)]
    useful = [c for c in able if constraints.useful_excess(c) <= 0]
    able = useful or able
    if not able:
        return Recommendation(id=None, reason=_nearest(front, constraints))
    only_quality = not (requested.max_latency_ms or requested.max_size_bytes or requested.max_memory_bytes)
    if only_quality and requested.max_drop is None and requested.min_quality is None:
        chosen = _knee(able, baseline, direction)
        among = f" among models that lose at most {drop:.0%} of the {metric}" if useful and drop is not None else ""
        reason = f"No limits were given, and it is the knee of the front{among}: the best balance of {metric} and latency"
    elif only_quality:
        sure = [c for c in able if _satisfies_quality_beyond_doubt(c, constraints.limits, direction)]
        chosen = min(sure or able, key=lambda c: (relative_latency(c), size_of(c)))
        doubt = "even at the far end of its 95 % interval" if sure else "though its 95 % interval reaches beyond them"
        reason = (
            f"Of the {len(able)} models on the front that satisfy the limits on quality it is the fastest that does so {doubt}"
        )
    else:
        chosen = _most_accurate_then_fastest(able, direction)
        reason = (
            f"Of the {len(able)} models on the front that satisfy every limit it is the fastest of those "
            f"whose {metric} cannot be distinguished from the best"
        )
    if chosen.id == BASELINE:
        return Recommendation(id=chosen.id, reason=f"The original. {reason}.")
    return Recommendation(id=chosen.id, reason=f"{reason}. Against the original: {_against(chosen, baseline, metric)}.")


def _satisfies_quality_beyond_doubt(candidate: CandidateResult, limits: Limits, direction: Direction) -> bool:
    if candidate.quality is None:
        return False
    validation, sign = candidate.quality.validation, direction.sign
    if limits.min_quality is not None:
        worst = min(sign * validation.low, sign * validation.high)
        if worst < sign * limits.min_quality:
            return False
    if limits.max_drop is not None and validation.difference is not None:
        return min(sign * validation.difference.low, sign * validation.difference.high) >= -limits.max_drop
    return True


def _most_accurate_then_fastest(able: Sequence[CandidateResult], direction: Direction) -> CandidateResult:
    best = max(able, key=lambda c: direction.sign * quality_of(c))

    def alike(candidate: CandidateResult) -> bool:
        noise = math.hypot(quality_noise(best), quality_noise(candidate))
        return direction.gain(quality_of(best), quality_of(candidate)) <= noise

    return min(filter(alike, able), key=lambda c: (relative_latency(c), size_of(c)))


def _knee(able: Sequence[CandidateResult], baseline: CandidateResult, direction: Direction) -> CandidateResult:
    """Return the point farthest from the line between the extremes (Das 1999), on quality and log latency scaled to the front.

    A quality that cannot be distinguished from the baseline's counts as the baseline's.
    """
    qualities = {}
    for c in able:
        alike = abs(quality_of(c) - quality_of(baseline)) <= quality_noise(c)
        qualities[c.id] = direction.sign * (quality_of(baseline) if alike else quality_of(c))
    times = {c.id: math.log(relative_latency(c)) for c in able}

    def share(values: dict[str, float], identifier: str) -> float:
        low, high = min(values.values()), max(values.values())
        return (values[identifier] - low) / (high - low) if high > low else 0.0

    return max(able, key=lambda c: (share(qualities, c.id) - share(times, c.id), -size_of(c)))


def _nearest(front: Sequence[CandidateResult], constraints: Constraints) -> str:
    violations = {c.id: constraints.violations(c) for c in front}
    if not violations:
        return "No candidate was completed."
    nearest = min(front, key=lambda c: sum(violations[c.id].values()))
    relax = " and ".join(_relaxed(key, nearest, constraints) for key in violations[nearest.id])
    name = "the original" if nearest.id == BASELINE else nearest.id
    return f"No model satisfies every limit. The nearest is {name}: it would need {relax}."


def _relaxed(key: str, nearest: CandidateResult, constraints: Constraints) -> str:
    """Return to which value a violated limit would have to be relaxed, rounded to one that would be satisfied."""
    limits, quality = constraints.limits, quality_of(nearest)
    own, limit, scale, unit, digits = {
        "max_latency": (nearest.latency[0].median_ms, limits.max_latency_ms, 1.0, "ms", 3),
        "max_size": (float(size_of(nearest)), limits.max_size_bytes, 1e-3, "kB", 4),
        "max_memory": (float(nearest.peak_memory_bytes or 0), limits.max_memory_bytes, 1e-6, "MB", 3),
        "max_drop": (abs(quality_of(constraints.baseline) - quality), limits.max_drop, 100.0, "%", 3),
        "min_quality": (quality, limits.min_quality, 1.0, "", 4),
    }[key]
    needed, given = own * scale, (limit or 0.0) * scale
    rounded = _rounded_outwards(needed, digits, up=needed > given)
    return f"{LIMIT_NAMES[key]} {rounded:.{digits}g}{unit} instead of {given:.{digits}g}{unit} ({rounded - given:+.2g}{unit})"


def _rounded_outwards(value: float, digits: int, *, up: bool) -> float:
    """Return the value rounded to significant digits, never to the side on which the limit would still be violated."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - digits)
    steps = value / step
    return round((math.ceil(steps - 1e-9) if up else math.floor(steps + 1e-9)) * step, 12)


def _against(candidate: CandidateResult, baseline: CandidateResult, metric: str) -> str:
    quality = candidate.quality.validation if candidate.quality else None
    latency, original = candidate.latency[0], baseline.latency[0]
    parts = [
        f"{relative_latency(candidate) / relative_latency(baseline):.2f} of the latency ({latency.evidence}, "
        f"{latency.median_ms:.3g} against {original.median_ms:.3g} ms)",
        f"{size_of(candidate) / size_of(baseline):.2f} of the size",
    ]
    if quality is not None and quality.difference is not None:
        lost = formatting.difference(metric, quality.difference, quality.examples)
        span = formatting.difference_span(metric, quality.difference, quality.examples)
        parts.append(f"{metric} {lost} {span} on validation")
    return ", ".join(parts)
