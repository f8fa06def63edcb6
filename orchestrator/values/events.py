"""Events for plugins that follow a search."""

from dataclasses import dataclass, field

from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStarted:
    """The start of a search, before its first candidate; the original is built, scored and timed.

    Attributes:
        run: Absolute path of the run directory.
        resumed: True if the run is continued; its earlier candidates are not reported again.
        known: Number of candidates that the run has already.
        trials: Budget of candidates, or None.
        timeout_s: Budget of time, or None.
        parameters: Further parameters of the search: its name, sampler, seed.
        methods: Names of the selected methods.
        baseline: The original as a candidate.
    """

    run: str
    resumed: bool
    known: int
    task: TaskDescription
    target: Target
    trials: int | None
    timeout_s: float | None
    baseline: CandidateResult
    methods: tuple[str, ...]
    parameters: dict[str, str] = field(default_factory=dict)
