"""The results of a run: results.json, schema 1, as dataclasses. Field names are the keys of the file."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.errors import FailureKind
from orchestrator.values.direction import Direction
from orchestrator.values.evidence import Evidence
from orchestrator.values.layers import LayerTable
from orchestrator.values.recipe import Recipe

State = Literal["complete", "failed", "rejected", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The reason why a candidate has no values."""

    kind: FailureKind
    step: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """One step of a recipe in results.json.

    Attributes:
        phrase: The method's description of the step, or "".
    """

    method: str
    version: int
    parameters: dict[str, Any]
    phrase: str = ""


def step_results(recipe: Recipe) -> list[StepResult]:
    """Return the steps of a recipe as results.json holds them."""
    return [StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactResult:
    """The exported file; `path` is relative to the run directory, null once the file was deleted."""

    path: str | None
    digest: str
    size_bytes: int
    runtime: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Candidate minus baseline on the same examples, with its 95 % interval (see `measuring.paired_tests`)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityResult:
    """The metric on one split with its 95 % interval."""

    value: float
    low: float
    high: float
    examples: int
    difference: Difference | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitQuality:
    """Quality on the split that chooses and, for the front, on the one that is used once, at the end."""

    validation: QualityResult
    test: QualityResult | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyResult:
    """One latency with its evidence; p90_ms, p99_ms, samples and what follows are null unless measured.

    Attributes:
        disturbed: Reason why the value is unreliable (a busy machine, ...).
        ratio: This candidate's time over the baseline's: timed side by side, with its 95 % interval; or simulated, with the 90
            % band of the errors that they do not share (null for the baseline).
        cpu_median_ms: CPU time of the calling thread, if one thread does all the work, which is valid under load.
        conditions: The state of the machine during the measurement (other load, clock, temperature), and how it ended.
    """

    evidence: Evidence
    device: str
    runtime: str
    threads: int
    median_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    samples: int | None = None
    disturbed: str | None = None
    note: str | None = None
    ratio: Difference | None = None
    cpu_median_ms: float | None = None
    conditions: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Convert a name of an evidence; raise ValueError for an unknown one."""
        object.__setattr__(self, "evidence", Evidence(self.evidence))


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedOutputs:
    """Outputs of the target's own kernels on a simulated CPU, beside this machine's on the same examples.

    Attributes:
        quality: The metric of those outputs, on the first examples of the validation split (`quality.examples` of them).
        quality_here: The metric of this machine's outputs on the same examples.
        largest_difference: Between the two, as a share of the output's range.
        tolerance: Largest difference that counts as equal.
    """

    device: str
    runtime: str
    quality: QualityResult
    quality_here: QualityResult
    largest_difference: float
    tolerance: float
    equal: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """An intermediate quality of a training, on the first examples of the validation split.

    It is measured in torch and not on an exported file, and serves early stopping alone: it is no candidate's quality.

    Attributes:
        step: The method that trains.
        call: Index of its training, from 0.
        share: Completed share of that training: 0 is the network before it.
        epochs: Length of the whole training.
    """

    step: str
    call: int
    share: float
    quality: float
    examples: int
    epochs: float = 0.0

    @property
    def key(self) -> str:
        """Return the name of the rung, by which candidates are compared."""
        return f"{self.step}#{self.call} of {self.epochs:g}@{self.share:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The qualities at which a training is stopped.

    Attributes:
        needed: A lower quality can no longer become sufficient, by the gains of earlier trainings from there.
        lowest: The lowest quality that such a training had there: the gain of lower ones is unknown.
    """

    needed: float
    lowest: float

    def above(self, quality: float, sign: float) -> bool:
        """Return True if a training of that quality is stopped; `sign` is 1 if more is better, else -1."""
        return sign * (quality - self.needed) < 0 <= sign * (quality - self.lowest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreseen:
    """Predicted cost of a candidate, from its untrained, exported network.

    Attributes:
        latency: Estimated from the graph or, without an estimate, measured; None if neither was possible.
    """

    size_bytes: int
    macs: int
    latency: LatencyResult | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateResult:
    """One candidate. Its first latency is the one that the search used."""

    id: str
    state: State
    recipe: list[StepResult]
    failure: Failure | None = None
    artifact: ArtifactResult | None = None
    quality: SplitQuality | None = None
    latency: list[LatencyResult] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    """Energy of the processor packages for one inference; the key is absent without a counter."""
    simulated_outputs: SimulatedOutputs | None = None
    """For the front, if a simulated CPU stands in for the target."""
    compressed_bytes: int | None = None
    macs: int | None = None
    parameters: int | None = None
    gains: bool | None = None
    feasible: bool | None = None
    foreseen: Foreseen | None = None
    """For a recipe that trains, if its untrained proxy was evaluated."""
    rungs: list[Rung] = field(default_factory=list)
    """Intermediate qualities of its trainings."""
    trial: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    """Parts from the store: "model", "latency", "quality". `seconds` are this run's, except "training": the original duration."""
    machines: dict[str, str] = field(default_factory=dict)
    """In a shared search, the machine that "built" it, and the one that "measured" it."""
    finished_s: float | None = None
    """Seconds from the start of the search to its end, without pauses between a stop and `resume`."""

    def as_recipe(self) -> Recipe:
        """Return the recipe with its steps as methods take them."""
        return Recipe.from_json([{"method": s.method, "version": s.version, "parameters": s.parameters} for s in self.recipe])

    @property
    def has_file(self) -> bool:
        """Return True if the exported file is kept."""
        return self.artifact is not None and self.artifact.path is not None

    def without_file(self) -> "CandidateResult":
        """Return the candidate with no path to its file."""
        return self if self.artifact is None else replace(self, artifact=replace(self.artifact, path=None))


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """The task; `digest` identifies the weights and the data."""

    name: str
    model: str
    data: str
    metric: str
    direction: Direction
    examples: dict[str, int]
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetResult:
    """The target and the limits of the search."""

    profile: str
    title: str
    device: str
    runtime: str
    threads: int
    limits: dict[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterImportance:
    """How much one parameter of the search space decides whether an objective is among the best.

    Attributes:
        parameter: A family ("pruning": which of its methods, if any) or "method.parameter".
        value: Its share of all importance, 0 to 1.
        chance: The largest of nineteen permutations: a parameter without influence exceeds it in one case of twenty.
    """

    parameter: str
    value: float
    chance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """Importance of the parameters in this search (PED-ANOVA: Watanabe et al. 2023, in Optuna).

    Attributes:
        trials: Number of complete candidates that it is computed from.
        best: Number of them that count as the best.
        quality: The parameters by importance for quality; empty with too few trials.
        latency: The parameters by importance for latency; empty with too few trials.
        needed: Least number of trials.
    """

    trials: int
    needed: int
    best: int = 0
    quality: list[ParameterImportance] = field(default_factory=list)
    latency: list[ParameterImportance] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """results.json."""

    schema: Literal[1]
    task: TaskResult
    target: TargetResult
    baseline: CandidateResult
    candidates: list[CandidateResult]
    front: list[str]
    recommended: str | None
    reason: str
    seconds: dict[str, float]
    environment: dict[str, Any]
    search: dict[str, Any]
    """The search's name, sampler, seed and budget, and why it ended."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the user: methods not offered and why, plugins that failed, files that were deleted."""
    importance: Importance | None = None
    """None in results of versions without it."""
    layers: dict[str, LayerTable] = field(default_factory=dict)
    """By candidate id, for the front: read from `layers.json` beside each file, not part of results.json."""

    def candidate(self, identifier: str) -> CandidateResult:
        """Return the candidate (or the baseline) of that id, or raise KeyError."""
        for candidate in (self.baseline, *self.candidates):
            if candidate.id == identifier:
                return candidate
        raise KeyError(identifier)
