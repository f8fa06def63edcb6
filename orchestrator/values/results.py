"""What a run leaves behind: results.json, schema 1, as dataclasses. Field names are the keys of the file."""

from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.values.direction import Direction
from orchestrator.values.layers import LayerTable

State = Literal["complete", "failed", "rejected", "stopped"]
FailureKind = Literal["error", "crash", "timeout", "out-of-memory", "limit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a candidate has no figures."""

    kind: FailureKind
    step: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """One step of a recipe as it stands in results.json.

    Attributes:
        phrase: What it does in the method's own words; "" where the method says nothing of it.
    """

    method: str
    version: int
    parameters: dict[str, Any]
    phrase: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactResult:
    """The exported file; `path` is relative to the run directory, null once the file was dropped."""

    path: str | None
    digest: str
    size_bytes: int
    runtime: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Candidate minus baseline on the same examples, with its 95 % interval (paired bootstrap)."""

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
    """Quality on the split that chooses and, for the front, on the one that is touched once, at the end."""

    validation: QualityResult
    test: QualityResult | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyResult:
    """One latency with its evidence; p90_ms, p99_ms, samples and what follows are null unless measured.

    Attributes:
        disturbed: Why the figure is to be read with care (a busy machine, ...).
        ratio: This candidate's time over the baseline's: timed side by side, with its 95 % interval; or simulated, with the 90 %
            band of what their errors do not share (null for the baseline).
        cpu_median_ms: CPU time of the calling thread, where one thread does all the work: it holds under load.
        conditions: What the machine was doing meanwhile (other work, clock, temperature), and how the measurement went.
    """

    evidence: Literal["measured-on-target", "simulated", "estimated", "measured-on-host"]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedOutputs:
    """What the target's own kernels gave on a simulated CPU, beside this machine's on the same examples.

    Attributes:
        quality: The metric of those outputs, on the first examples of the validation split (`quality.examples` of them).
        quality_here: The metric of this machine's outputs on the same examples.
        largest_difference: Between the two, as a share of the output's range.
        tolerance: What counts as equal.
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
    """What a training had reached on its way: the quality of the network in it, on the first examples of the validation split.

    It is taken in torch and not from an exported file, and serves early stopping alone: it is no candidate's quality.

    Attributes:
        step: The method that trains.
        call: Which of its trainings, from 0.
        share: How much of that training was done: 0 is the network before it.
        epochs: How long all of it is.
    """

    step: str
    call: int
    share: float
    quality: float
    examples: int
    epochs: float = 0.0

    @property
    def key(self) -> str:
        """Names the place: what is compared between candidates."""
        return f"{self.step}#{self.call} of {self.epochs:g}@{self.share:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """Where a training is stopped.

    Attributes:
        needed: A quality that is worse than this can no longer become good enough, by what trainings have gained from there.
        lowest: The worst quality that such a training had there: of worse ones nobody knows what they gain.
    """

    needed: float
    lowest: float

    def above(self, quality: float, sign: float) -> bool:
        """Whether a training of that quality is stopped; `sign` is 1 where more is better, else -1."""
        return sign * (quality - self.needed) < 0 <= sign * (quality - self.lowest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreseen:
    """What the untrained network costs, exported: known before a training is paid for.

    Attributes:
        latency: Estimated from the graph or, where there is no estimate, measured; None where neither could be had.
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
    """Of the processor packages, for one inference; the key is absent where the device has no counter."""
    simulated_outputs: SimulatedOutputs | None = None
    """Of the front, where a simulated CPU stands in for the target."""
    compressed_bytes: int | None = None
    macs: int | None = None
    parameters: int | None = None
    gains: bool | None = None
    feasible: bool | None = None
    foreseen: Foreseen | None = None
    """Of a recipe that trains, where it was looked at before."""
    rungs: list[Rung] = field(default_factory=list)
    """What its trainings had reached on their way."""
    trial: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    """What of it came from the store: "model", "latency", "quality". `seconds` are this run's, but for "training": that is what
    its trainings took when they were done."""
    machines: dict[str, str] = field(default_factory=dict)
    """Where several machines share a search: the one that "built" it, and the one that "measured" it."""
    finished_s: float | None = None
    """Seconds from the start of the search to its end, pauses between a stop and `resume` left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """The task; `digest` names the weights and the data."""

    name: str
    model: str
    data: str
    metric: str
    direction: Direction
    examples: dict[str, int]
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetResult:
    """The target and the limits that the search kept."""

    profile: str
    title: str
    device: str
    runtime: str
    threads: int
    limits: dict[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterImportance:
    """How much one parameter of the search space decides whether a figure is among the best.

    Attributes:
        parameter: A family ("pruning": which of its methods, if any) or "method.parameter".
        value: Its share of all importance, 0 to 1.
        chance: The most of nineteen deals of the same figures at random: what does not matter passes it in one case of twenty.
    """

    parameter: str
    value: float
    chance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """Which parameters mattered in this search (PED-ANOVA: Watanabe et al. 2023, in Optuna).

    Attributes:
        trials: The complete candidates that it rests on.
        best: How many of them count as the best.
        quality, latency: The parameters by importance; empty where there are too few trials to say.
        needed: The fewest trials that are looked at.
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
    """What the user should know: methods not offered and why, plugins that failed, files that were dropped."""
    importance: Importance | None = None
    """None in results of versions that did not look at it."""
    layers: dict[str, LayerTable] = field(default_factory=dict)
    """By candidate id, of the front: read from `layers.json` beside each file, and not part of results.json."""

    def candidate(self, identifier: str) -> CandidateResult:
        """The candidate (or the baseline) of that id; KeyError when there is none."""
        for candidate in (self.baseline, *self.candidates):
            if candidate.id == identifier:
                return candidate
        raise KeyError(identifier)
