"""Which figure of a candidate stands where: the objective, the host's time, and the part that a candidate plays."""

import math
from typing import Literal

from orchestrator.report.formatting import EVIDENCE, line
from orchestrator.values.results import CandidateResult, Difference, LatencyResult, QualityResult, RunResult

DISTURBED = 2.0
"""A disturbed ratio's interval counts as so many times as wide (in logarithms), as it does for the front."""

Role = Literal["baseline", "recommended", "front", "dominated", "over a limit", "failed", "rejected", "stopped"]


def objective_evidence(run: RunResult) -> str | None:
    """The kind of evidence that this run's front compares; None where nothing was timed."""
    for candidate in (run.baseline, *run.candidates):
        if candidate.latency:
            return candidate.latency[0].evidence
    return None


def objective(run: RunResult, candidate: CandidateResult) -> LatencyResult | None:
    """The latency that the search used; a figure of another kind of evidence never takes its place."""
    if candidate.latency and candidate.latency[0].evidence == objective_evidence(run):
        return candidate.latency[0]
    return None


def estimated(candidate: CandidateResult) -> LatencyResult | None:
    """What was computed for the target from the graph."""
    return next((latency for latency in candidate.latency if latency.evidence == "estimated"), None)


def on_host(candidate: CandidateResult) -> LatencyResult | None:
    """The time on this host, which is shown beside the target's and never mixed with it."""
    return next((latency for latency in candidate.latency if latency.evidence == "measured-on-host"), None)


def role(run: RunResult, candidate: CandidateResult) -> Role:
    """The part that a candidate plays in the run."""
    if candidate.id == run.recommended:
        return "recommended"
    if candidate.id == run.baseline.id:
        return "baseline"
    if candidate.id in run.front:
        return "front"
    if candidate.state != "complete":
        return candidate.state
    return "over a limit" if candidate.feasible is False else "dominated"


def ordered(run: RunResult) -> list[CandidateResult]:
    """The baseline, the recommended one, the front from fast to slow, then the others as the search found them."""
    rank = {"recommended": 1, "front": 2, "dominated": 3, "over a limit": 4, "stopped": 5, "failed": 6, "rejected": 7}

    def key(candidate: CandidateResult) -> tuple[int, float]:
        time = objective(run, candidate)
        return rank.get(role(run, candidate), 0), time.median_ms if time else float("inf")

    others = [candidate for candidate in run.candidates if candidate.id != run.baseline.id]
    return [run.baseline, *sorted(others, key=key)]


def shown_quality(candidate: CandidateResult) -> tuple[str, QualityResult] | None:
    """The split and the quality that a conclusion rests on: the test split where it was touched, else validation."""
    if candidate.quality is None:
        return None
    if candidate.quality.test is not None:
        return "test", candidate.quality.test
    return "validation", candidate.quality.validation


def relative_time(run: RunResult, candidate: CandidateResult) -> Difference | None:
    """The candidate's objective latency over the original's, with its interval; None where one of them was not timed.

    Where the two were timed or simulated side by side, that ratio. Else its ends are those of two independent errors (Zou and
    Donner 2008, "Construction of confidence limits about effect measures"), too wide where a part of the error is shared.
    """
    own, base = objective(run, candidate), objective(run, run.baseline)
    if own is None or own.median_ms <= 0:
        return None
    if own.ratio is not None and own.ratio.value > 0:
        width = DISTURBED if own.disturbed and own.evidence.startswith("measured") else 1.0
        return _between(
            own.ratio.value, width * _log(own.ratio.value, own.ratio.low), width * _log(own.ratio.high, own.ratio.value)
        )
    if base is None or base.median_ms <= 0:
        return None
    below = math.hypot(_log(own.median_ms, own.low_ms), _log(base.high_ms, base.median_ms))
    above = math.hypot(_log(own.high_ms, own.median_ms), _log(base.median_ms, base.low_ms))
    return _between(own.median_ms / base.median_ms, below, above)


def _between(value: float, below: float, above: float) -> Difference:
    return Difference(value=value, low=value * math.exp(-below), high=value * math.exp(above))


def _log(high: float, low: float) -> float:
    """How far apart two times are, in natural logarithms."""
    return math.inf if low <= 0 else max(0.0, math.log(high / low))


def speed(ratio: Difference) -> str:
    """A ratio of times in words: '2.3 times faster', '5 % slower'; "" where its interval holds 1, or there is nothing to say."""
    if ratio.value <= 0 or ratio.low <= 1 <= ratio.high:
        return ""
    gain = ratio.high < 1
    factor, word = (1 / ratio.value, "faster") if gain else (ratio.value, "slower")
    if factor < 2:
        return f"{said} {word}" if (said := per_cent(factor - 1, gain=gain)) else ""
    steps = 10 if factor < 10 else 1
    return f"{_whole(factor * steps, gain=gain) / steps:.{1 if steps == 10 else 0}f} times {word}"


def per_cent(share: float, *, gain: bool) -> str:
    """A change of so much as a whole number of per cent, never better than it is; "" where nothing is left of it."""
    whole = _whole(100 * share, gain=gain)
    return f"{whole} %" if whole >= 1 else ""


def _whole(value: float, *, gain: bool) -> int:
    """A gain is rounded down, a loss up."""
    return math.floor(value + 1e-9) if gain else math.ceil(value - 1e-9)


def place(run: RunResult) -> str:
    """Where the objective is true, in words: 'Raspberry Pi 4'."""
    return line(run.target.title or run.target.profile)


def objective_label(run: RunResult) -> str:
    """The evidence and the place of the objective: 'estimated, Raspberry Pi 4'."""
    evidence = objective_evidence(run)
    if evidence is None:
        return f"not timed, {place(run)}"
    return f"{EVIDENCE[evidence]}, {'this host' if evidence == 'measured-on-host' else place(run)}"
