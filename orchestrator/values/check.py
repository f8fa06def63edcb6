"""What `check` finds, and how it stands in its JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Name = Literal["latency", "quality", "size", "peak-memory"]
Judgement = Literal["ok", "regressed", "undecided", "not judged"]
Noisy = Literal["pass", "fail"]
EXIT_REGRESSED, EXIT_UNDECIDED = 1, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One thing that must not become worse.

    Attributes:
        baseline, candidate: The two values, in `unit`; None where there are none.
        unit: "ms", "bytes", or the metric's name.
        change: How much worse the candidate is: as a share of the baseline's value for latency, size and memory (0.05: 5 % more),
            in points of the metric for quality (0.005: half a point of accuracy lost). Negative: better.
        low, high: The interval of `change`; equal to it where it is exact.
        limit: The largest `change` that is allowed.
        confidence: Of the interval, 0 to 1; None where the figures are exact.
        reason: The verdict in a sentence.
        warning: What the verdict must not hide, e.g. that too few examples were there to see a drop of the size of the limit.
        details: Where the figures come from: rounds and clock of a latency, split and examples of a quality, ...
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
    """A candidate beside its baseline: has it regressed?

    Attributes:
        baseline, candidate: The model files.
        noisy: What is made of a criterion that noise left undecided; None: nothing, it stays undecided.
        seconds: What the check took.
        environment: The device that timed them; empty where nothing was run.
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
        """A regression of one criterion is one of the model; `noisy` says what an undecided one is."""
        found = {criterion.verdict for criterion in self.criteria}
        if "regressed" in found:
            return "regressed"
        if "undecided" not in found:
            return "ok"
        return "undecided" if self.noisy is None else "ok" if self.noisy == "pass" else "regressed"

    @property
    def decided_by_noisy(self) -> bool:
        """Whether the verdict is the user's choice, for noise hid the truth."""
        found = {criterion.verdict for criterion in self.criteria}
        return self.noisy is not None and "undecided" in found and "regressed" not in found

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 a regression, 3 too noisy to say."""
        return {"ok": 0, "regressed": EXIT_REGRESSED, "undecided": EXIT_UNDECIDED}[self.verdict]

    def plain(self) -> dict[str, Any]:
        """One object for JSON."""
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
