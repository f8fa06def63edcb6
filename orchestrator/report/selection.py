"""Selection of values: the objective latency, the time on the host, and the role of a candidate."""

import math
from typing import Literal

from orchestrator.report.formatting import EVIDENCE, line
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult, Difference, LatencyResult, QualityResult, RunResult

DISTURBED = 2.0
"""Factor by which a disturbed ratio's interval is widened (in logarithms), as for the front."""

Role = Literal["baseline", "recommended", "front", "dominated", "over a limit", "failed", "rejected", "stopped"]


def objective_evidence(run: RunResult) -> Evidence | None:
    """Return the evidence that this run's front compares, or None if nothing was timed."""
    for candidate in (run.baseline, *run.candidates):
        if candidate.latency:
            return candidate.latency[0].evidence
    return None


def objective(run: RunResult, candidate: CandidateResult) -> LatencyResult | None:
    """Return the latency that the search used; a value of other evidence never replaces it."""
    if candidate.latency and candidate.latency[0].evidence == objective_evidence(run):
        return candidate.latency[0]
    return None


def estimated(candidate: CandidateResult) -> LatencyResult | None:
    """Return the latency that was estimated for the target."""
    return next((latency for latency in candidate.latency if latency.evidence == "estimated"), None)


def on_host(candidate: CandidateResult) -> LatencyResult | None:
    """Return the time on this host, which is never mixed with the target's."""
    return next((latency for latency in candidate.latency if latency.evidence == "measured-on-host"), None)


def role(run: RunResult, candidate: CandidateResult) -> Role:
    """Return the role of the candidate in the run."""
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
    """Return the baseline, the recommended candidate, the front from fast to slow, then the others in the order of trials."""
    rank = {"recommended": 1, "front": 2, "dominated": 3, "over a limit": 4, "stopped": 5, "failed": 6, "rejected": 7}

    def key(candidate: CandidateResult) -> tuple[int, float]:
        time = objective(run, candidate)
        return rank.get(role(run, candidate), 0), time.median_ms if time else float("inf")

    others = [candidate for candidate in run.candidates if candidate.id != run.baseline.id]
    return [run.baseline, *sorted(others, key=key)]


def shown_quality(candidate: CandidateResult) -> tuple[str, QualityResult] | None:
    """Return the split and the quality for conclusions: the test split if it was used, else validation."""
    if candidate.quality is None:
        return None
    if candidate.quality.test is not None:
        return "test", candidate.quality.test
    return "validation", candidate.quality.validation


def relative_time(run: RunResult, candidate: CandidateResult) -> Difference | None:
    """Return the candidate's objective latency over the original's, with its interval, or None if one was not timed.

    If the two were timed or simulated side by side, it is that ratio. Otherwise the interval is that of two independent errors
    (Zou and Donner 2008, "Construction of confidence limits about effect measures"), too wide if they share a part of the
    error.
    """
    own, base = objective(run, candidate), objective(run, run.baseline)
    if own is None or own.median_ms <= 0:
        return None
    if own.ratio is not None and own.ratio.value > 0:
        width = DISTURBED if own.disturbed and own.evidence.is_measured else 1.0
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
    """Return the distance of two times in natural logarithms."""
    return math.inf if low <= 0 else max(0.0, math.log(high / low))


def speed(ratio: Difference) -> str:
    """Format a ratio of times: '2.3 times faster', '5 % slower'; "" if its interval contains 1."""
    if ratio.value <= 0 or ratio.low <= 1 <= ratio.high:
        return ""
    gain = ratio.high < 1
    factor, word = (1 / ratio.value, "faster") if gain else (ratio.value, "slower")
    if factor < 2:
        return f"{said} {word}" if (said := per_cent(factor - 1, gain=gain)) else ""
    steps = 10 if factor < 10 else 1
    return f"{_whole(factor * steps, gain=gain) / steps:.{1 if steps == 10 else 0}f} times {word}"


def per_cent(share: float, *, gain: bool) -> str:
    """Format a change as a whole per cent, never better than it is; "" if it rounds to nothing."""
    whole = _whole(100 * share, gain=gain)
    return f"{whole} %" if whole >= 1 else ""


def _whole(value: float, *, gain: bool) -> int:
    """Round a gain down and a loss up."""
    return math.floor(value + 1e-9) if gain else math.ceil(value - 1e-9)


def place(run: RunResult) -> str:
    """Return the machine of the objective: 'Raspberry Pi 4'."""
    return line(run.target.title or run.target.profile)


def objective_label(run: RunResult) -> str:
    """Return the evidence and the machine of the objective: 'estimated, Raspberry Pi 4'."""
    evidence = objective_evidence(run)
    if evidence is None:
        return f"not timed, {place(run)}"
    return f"{EVIDENCE[evidence]}, {'this host' if evidence == 'measured-on-host' else place(run)}"
