"""Which figure of a candidate stands where: the objective, the host's time, and the part that a candidate plays."""

from typing import Literal

from orchestrator.report.words import EVIDENCE, line, number
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult, RunResult

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


def gained(small: float, big: float) -> str | None:
    """How many times smaller `small` is than `big`, in words: '2.9 times'; None where there is nothing to say."""
    if small <= 0 or big <= 0 or 0.98 < big / small < 1.02:
        return None
    return f"{number(max(big / small, small / big), 2 if big / small < 10 else 3)} times"


def place(run: RunResult) -> str:
    """Where the objective is true, in words: 'Raspberry Pi 4'."""
    return line(run.target.title or run.target.profile)


def objective_label(run: RunResult) -> str:
    """The evidence and the place of the objective: 'estimated, Raspberry Pi 4'."""
    evidence = objective_evidence(run)
    if evidence is None:
        return f"not timed, {place(run)}"
    return f"{EVIDENCE[evidence]}, {'this host' if evidence == 'measured-on-host' else place(run)}"
