"""Which model of the front is recommended, and why, in a sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.report import formatting
from orchestrator.study.pareto.constraints import excesses, kept, useless
from orchestrator.study.pareto.dominance import latency_of, quality_noise, quality_of, relative_latency, size_of
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
    """The recommended candidate's id, or None where nothing keeps the limits; and the reason."""

    id: str | None
    reason: str


def recommend(
    front: Sequence[CandidateResult],
    baseline: CandidateResult,
    limits: Limits,
    *,
    asked: Limits,
    useful_drop: float | None,
    metric: str,
    direction: Direction,
) -> Recommendation:
    """Choose by the validation split. `limits` must be kept; which of them the user `asked` for says what matters to them.

    Under limits on latency, size or memory: the most accurate beyond noise, then the fastest. Under limits on quality alone: the
    fastest that keeps them, where one exists that keeps them beyond doubt. Without limits: the knee. Where nothing keeps
    the limits: none, with the nearest and what would have to be relaxed. Without a limit on quality, models that lose more
    than the share `useful_drop` of the original's are passed over while there are others.
    """
    able = [c for c in front if kept(c, baseline, limits, direction)]
    useful = [c for c in able if useless(c, baseline, direction, useful_drop) <= 0]
    able = useful or able
    if not able:
        return Recommendation(id=None, reason=_nearest(front, baseline, limits, direction))
    only_quality = not (asked.max_latency_ms or asked.max_size_bytes or asked.max_memory_bytes)
    some_limit = not only_quality or asked.max_drop is not None or asked.min_quality is not None
    if not some_limit:
        chosen = _knee(able, baseline, direction)
        among = f" among models that lose at most {useful_drop:.0%} of the {metric}" if useful and useful_drop is not None else ""
        reason = f"No limits were given, and it is the knee of the front{among}: the best balance of {metric} and latency"
    elif only_quality:
        sure = [c for c in able if _keeps_drop_beyond_doubt(c, limits, direction)]
        chosen = min(sure or able, key=lambda c: (relative_latency(c), size_of(c)))
        doubt = "even at the far end of its 95 % interval" if sure else "though its 95 % interval reaches beyond them"
        reason = f"Of the {len(able)} models on the front that keep the limits on quality it is the fastest that does so {doubt}"
    else:
        chosen = _most_accurate_then_fastest(able, direction)
        reason = (
            f"Of the {len(able)} models on the front that keep every limit it is the fastest of those "
            f"whose {metric} cannot be told from the best"
        )
    if chosen.id == BASELINE:
        return Recommendation(id=chosen.id, reason=f"The original. {reason}.")
    return Recommendation(id=chosen.id, reason=f"{reason}. Against the original: {_against(chosen, baseline, metric)}.")


def _keeps_drop_beyond_doubt(candidate: CandidateResult, limits: Limits, direction: Direction) -> bool:
    if candidate.quality is None:
        return False
    validation = candidate.quality.validation
    sign = direction.sign
    if limits.min_quality is not None:
        worst = validation.low if sign > 0 else validation.high
        if sign * (worst - limits.min_quality) < 0:
            return False
    if limits.max_drop is not None and validation.difference is not None:
        worst = validation.difference.low if sign > 0 else validation.difference.high
        return sign * worst >= -limits.max_drop
    return True


def _most_accurate_then_fastest(able: Sequence[CandidateResult], direction: Direction) -> CandidateResult:
    sign = direction.sign
    best = max(able, key=lambda c: sign * quality_of(c))
    alike = [c for c in able if sign * (quality_of(best) - quality_of(c)) <= math.hypot(quality_noise(best), quality_noise(c))]
    return min(alike, key=lambda c: (relative_latency(c), size_of(c)))


def _knee(able: Sequence[CandidateResult], baseline: CandidateResult, direction: Direction) -> CandidateResult:
    """The point farthest from the line between the extremes (Das 1999), on quality and log latency, each scaled to the front.

    A quality that cannot be told from the baseline's counts as the baseline's.
    """
    sign = direction.sign
    qualities = {}
    for c in able:
        alike = abs(quality_of(c) - quality_of(baseline)) <= quality_noise(c)
        qualities[c.id] = sign * (quality_of(baseline) if alike else quality_of(c))
    times = {c.id: math.log(relative_latency(c)) for c in able}

    def share(values: dict[str, float], identifier: str) -> float:
        low, high = min(values.values()), max(values.values())
        return (values[identifier] - low) / (high - low) if high > low else 0.0

    return max(able, key=lambda c: (share(qualities, c.id) - share(times, c.id), -size_of(c)))


def _nearest(front: Sequence[CandidateResult], baseline: CandidateResult, limits: Limits, direction: Direction) -> str:
    broken = {c.id: {k: v for k, v in excesses(c, baseline, limits, direction).items() if v > 0} for c in front}
    if not broken:
        return "No candidate was completed."
    nearest = min(front, key=lambda c: sum(broken[c.id].values()))
    relax = " and ".join(_relaxed(key, nearest, baseline, limits) for key in broken[nearest.id])
    name = "the original" if nearest.id == BASELINE else nearest.id
    return f"No model keeps every limit. The nearest is {name}: it would do with {relax}."


def _relaxed(key: str, nearest: CandidateResult, baseline: CandidateResult, limits: Limits) -> str:
    """A limit that a candidate breaks: to what it would have to be relaxed, and by how much that is. Rounded to what is kept."""
    own, limit, scale, unit, digits = {
        "max_latency": (latency_of(nearest), limits.max_latency_ms, 1.0, "ms", 3),
        "max_size": (float(size_of(nearest)), limits.max_size_bytes, 1e-3, "kB", 4),
        "max_memory": (float(nearest.peak_memory_bytes or 0), limits.max_memory_bytes, 1e-6, "MB", 3),
        "max_drop": (abs(quality_of(baseline) - quality_of(nearest)), limits.max_drop, 100.0, "%", 3),
        "min_quality": (quality_of(nearest), limits.min_quality, 1.0, "", 4),
    }[key]
    wanted, given = own * scale, (limit or 0.0) * scale
    rounded = _outwards(wanted, digits, up=wanted > given)
    return f"{LIMIT_NAMES[key]} {rounded:.{digits}g}{unit} instead of {given:.{digits}g}{unit} ({rounded - given:+.2g}{unit})"


def _outwards(value: float, digits: int, *, up: bool) -> float:
    """Rounded to so many digits, never to the side on which the limit would still be broken."""
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
