"""The smaller charts: the course of a search, and estimates beside measured or simulated values."""

import statistics
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from orchestrator.plugin import CandidateResult, LatencyResult, RunResult
from orchestrator.plugin.report import (
    box_of,
    course,
    estimated,
    formatting,
    objective,
    on_host,
    ordered,
    reference_words,
    why_no_box,
)
from orchestrator_reports import svg

SIZE = (456, 260)
NARROW = (343, 240)


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """The course of a search.

    Attributes:
        reference: The reference point of the hypervolume as text.
        last: The final hypervolume, 0 to 1.
        ninety: Number of candidates after which nine tenths of it were reached.
        drawings: SVG over candidates and, if known, over time.
    """

    reference: str
    last: float
    ninety: int
    drawings: list[str]


def course_of(run: RunResult) -> Course | None:
    """Return the course of a run, or None; see `why_no_course`."""
    box = box_of([run])
    if box is None or len(run.candidates) < 2:
        return None
    moments = course(run, box)
    last = moments[-1].volume
    if last <= 0:
        return None
    drawings = [_steps([(float(m.candidates), m.volume) for m in moments], "candidates")]
    timed = [(m.seconds, m.volume) for m in moments if m.seconds is not None]
    if len(timed) > len(moments) / 2:
        minutes = timed[-1][0] > 180
        scale = 60 if minutes else 1
        drawings.append(_steps([(s / scale, v) for s, v in _rising(timed)], "minutes" if minutes else "seconds"))
    ninety = next(m.candidates for m in moments if m.volume >= 0.9 * last)
    return Course(reference=reference_words(box, run.task.metric), last=last, ninety=ninety, drawings=drawings)


def why_no_course(run: RunResult) -> str:
    """Return the reason why `course_of` this run is None."""
    return why_no_box([run]) if box_of([run]) is None else "one candidate alone has no course"


def _rising(timed: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (seconds, volume) by time, never falling: a shared search may finish its trials in another order."""
    found: list[tuple[float, float]] = []
    for seconds, volume in sorted(timed):
        found.append((seconds, max(volume, found[-1][1] if found else 0.0)))
    return found


def _steps(points: list[tuple[float, float]], unit: str) -> str:
    title = f"Hypervolume over {unit}: {points[-1][1]:.3f} at the end."
    (width, height), (left, right, top, bottom) = SIZE, (52, 14, 34, 46)
    x = svg.Scale(low=0.0, high=max(points[-1][0], 1e-9), start=left, end=width - right)
    y = svg.Scale(low=0.0, high=max(p[1] for p in points) * 1.08, start=height - bottom, end=top)
    places = [(x.at(a), y.at(b)) for a, b in points]
    line = svg.stairs(places, "line")
    area = line.replace('class="line"', 'class="area"').replace('"/>', f'V{y.start:.1f}H{places[0][0]:.1f}Z"/>')
    dots = "".join(f'<circle class="dot" cx="{b[0]:.1f}" cy="{b[1]:.1f}" r="2.6"/>' for a, b in pairwise(places) if b[1] < a[1])
    frame = svg.axes(x, y, unit, "hypervolume", x_ticks=8, y_ticks=5)
    return svg.drawing(width, height, frame + area + line + dots, name="small", title=title)


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateAgreement:
    """Estimates of the target's latency beside stronger evidence of the same candidates.

    Attributes:
        against: The other evidence as text.
        number: Number of candidates with both.
        ratio: Median of the other value over the estimate.
        spread: Factor around that median that contains nine tenths of the candidates.
        tau: Kendall's rank correlation, or None with fewer than three candidates.
        same_target: True if both values are of the same machine.
    """

    against: str
    number: int
    ratio: float
    spread: float
    tau: float | None
    same_target: bool
    drawing: str


def agreement_of(run: RunResult) -> EstimateAgreement | None:
    """Return the comparison of estimates with the target's own values, else with this host's, or None."""
    for same_target in (True, False):
        pairs = [
            (candidate, own, other)
            for candidate in ordered(run)
            if candidate.state == "complete"
            and (own := estimated(candidate)) is not None
            and (other := _other(run, candidate, same_target=same_target)) is not None
            and own.median_ms > 0
            and other.median_ms > 0
        ]
        if len(pairs) >= 3:
            return _agreement(run, pairs, same_target=same_target)
    return None


def _other(run: RunResult, candidate: CandidateResult, *, same_target: bool) -> LatencyResult | None:
    if not same_target:
        return on_host(candidate)
    found = objective(run, candidate)
    return found if found is not None and found.evidence in ("simulated", "measured-on-target") else None


def _agreement(
    run: RunResult, pairs: list[tuple[CandidateResult, LatencyResult, LatencyResult]], *, same_target: bool
) -> EstimateAgreement:
    ratios = [other.median_ms / own.median_ms for _, own, other in pairs]
    middle = statistics.median(ratios)
    off = sorted(max(r / middle, middle / r) for r in ratios)
    spread = off[min(len(off) - 1, int(0.9 * len(off)))]
    kind = formatting.EVIDENCE[pairs[0][2].evidence]
    against = f"{kind} on {'the target' if same_target else 'this host'}"
    return EstimateAgreement(
        against=against,
        number=len(pairs),
        ratio=middle,
        spread=spread,
        tau=_tau([own.median_ms for _, own, _ in pairs], [other.median_ms for _, _, other in pairs]),
        same_target=same_target,
        drawing=_scatter(pairs, against, equal=same_target),
    )


def _tau(a: list[float], b: list[float]) -> float | None:
    """Return Kendall's tau-b, +1 for the same order, or None if one side is constant."""
    from scipy.stats import kendalltau

    found = float(kendalltau(a, b).statistic)
    return None if found != found else found


def _scatter(pairs: list[tuple[CandidateResult, LatencyResult, LatencyResult]], against: str, *, equal: bool) -> str:
    """Return the scatter plot, with the line of equality if both values are of one machine."""
    (width, height), (left, right, top, bottom) = SIZE, (58, 14, 34, 46)
    across, up = [own.median_ms for _, own, _ in pairs], [other.median_ms for _, _, other in pairs]
    x = svg.around(across, left, width - right, log=True)
    y = svg.around(up, height - bottom, top, log=True)
    parts = [svg.axes(x, y, "estimated (ms)", f"{against} (ms)", x_ticks=6, y_ticks=5)]
    low, high = max(x.low, y.low), min(x.high, y.high)
    if equal and low < high:
        line = f"M{x.at(low):.1f},{y.at(low):.1f}L{x.at(high):.1f},{y.at(high):.1f}"
        parts.append(f'<path class="stairs" d="{line}"/>')
    for candidate, own, other in pairs:
        a, b = x.at(own.median_ms), y.at(other.median_ms)
        figures = " and ".join(formatting.milliseconds(latency.median_ms) for latency in (own, other))
        said = escape(f"{formatting.line(candidate.id)}: {figures}")
        parts.append(f"<g>{svg.mark('circle', a, b, 4.5, 'front open')}<title>{said}</title></g>")
    title = f"Estimated latency against that {against}, of {len(pairs)} candidates."
    return svg.drawing(width, height, "".join(parts), name="small", title=title)
