"""What plugins that follow a search are told."""

from dataclasses import dataclass, field

from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchStarted:
    """A search is about to ask for its first candidate; the original is built, scored and timed.

    Attributes:
        run: The absolute path of the run directory.
        resumed: Whether the run goes on; its earlier candidates are not told again.
        known: How many candidates the run has already.
        trials: The budget; None: no limit.
        timeout_s: The budget; None: no limit.
        parameters: What the search was told beside: its name, sampler, seed.
        methods: The methods that take part.
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
