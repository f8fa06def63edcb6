"""The result of a check and its JSON form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Name = Literal["latency", "quality", "size", "peak-memory"]
Judgement = Literal["ok", "regressed", "undecided", "not judged"]
Noisy = Literal["pass", "fail"]
EXIT_REGRESSED, EXIT_UNDECIDED = 1, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One criterion of a check.

    Attributes:
        baseline: The baseline's value in `unit`, or None.
        candidate: The candidate's value in `unit`, or None.
        unit: "ms", "bytes", or the metric's name.
        change: How much worse the candidate is: a fraction of the baseline's value for latency, size and memory (0.05: 5 %
            more), points of the metric for quality (0.005: half a point of accuracy lost). Negative is better.
        low: Low end of the interval of `change`; equal to it if it is exact.
        high: High end of the interval.
        limit: The largest allowed `change`.
        confidence: Confidence of the interval, 0 to 1; None if the values are exact.
        reason: The verdict in a sentence.
        warning: A caveat, for example that there were too few examples to detect a drop of the size of the limit.
        details: Origin of the values: rounds and clock of a latency, split and examples of a quality, ...
    """

    name: Name
    verdict: Judgement
    reason: str
    unit: str
    limit: float | None = None
    baseline: float | None = None
    candidate: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    warning: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """A candidate beside its baseline.

    Attributes:
        baseline: The baseline's model file.
        candidate: The candidate's model file.
        noisy: Verdict for criteria that noise left undecided; None leaves them undecided.
        seconds: Duration of the check.
        environment: The device that timed the models; empty if nothing was run.
    """

    baseline: str
    candidate: str
    target: str
    device: str
    runtime: str
    threads: int
    criteria: tuple[Criterion, ...]
    noisy: Noisy | None = None
    seconds: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Literal["ok", "regressed", "undecided"]:
        """Return the overall verdict: a regression of one criterion is one of the model; `noisy` decides undecided ones."""
        found = {criterion.verdict for criterion in self.criteria}
        if "regressed" in found:
            return "regressed"
        if "undecided" not in found:
            return "ok"
        return "undecided" if self.noisy is None else "ok" if self.noisy == "pass" else "regressed"

    @property
    def decided_by_noisy(self) -> bool:
        """Return True if the verdict is the user's choice for an undecided criterion."""
        found = {criterion.verdict for criterion in self.criteria}
        return self.noisy is not None and "undecided" in found and "regressed" not in found

    @property
    def exit_code(self) -> int:
        """Return 0 for no regression, 1 for a regression, 3 for undecided."""
        return {"ok": 0, "regressed": EXIT_REGRESSED, "undecided": EXIT_UNDECIDED}[self.verdict]

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        found = asdict(self)
        said = ("baseline", "candidate", "criteria", "noisy", "target", "device", "runtime", "threads")
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "decided_by_noisy": self.decided_by_noisy,
            **{key: found[key] for key in said},
            "seconds": round(self.seconds, 2),
            "environment": found["environment"],
        }
