"""What the search and its build worker say to each other: plain data, as JSON."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from orchestrator.measuring.model_info import ModelInfo
from orchestrator.plugin.parameters import Choice, Number
from orchestrator.values.results import Floor, QualityResult, Rung
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

ASKING = "asking "
"""How a worker's report begins while it asks a method what it offers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareRequest:
    """All that a worker must know to build candidates.

    Attributes:
        metric, loss: A plugin's name, `file.py:function`, or None for the default.
        student: The factory of a network to distil into.
        methods: Names of the methods that take part; None: all that are installed.
        runtime: What the exported models are made for.
        workspace: The run's work folder.
        seconds, trials: Budget of the run, for the length of recovery trainings; None: not limited.
        offers: Whether to ask the methods what they offer (a worker that replaces a dead one need not).
        epochs: The epochs that the first worker found; None: find them.
        store: The folder in which results are kept for other runs; None: none is.
        store_bytes: The bound of its size.
    """

    name: str
    model: str
    data: str
    metric: str | None
    loss: str | None
    student: str | None
    target: Target
    methods: tuple[str, ...] | None
    without: tuple[str, ...]
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int
    runtime: str
    workspace: str
    seconds: float | None
    trials: int | None
    offers: bool = True
    epochs: tuple[float, float] | None = None
    store: str | None = None
    store_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferReply:
    """A method's search ranges, or why it takes no part."""

    method: str
    version: int
    family: str
    parameters: tuple[Choice | Number, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReply:
    """The task as the worker found it.

    Attributes:
        judge: What stands for the metric in keys of the store; None where nothing is kept.
    """

    task: TaskDescription
    offers: tuple[OfferReply, ...]
    epochs: tuple[float, float]
    notes: tuple[str, ...] = ()
    judge: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReply:
    """What came of a build.

    Attributes:
        model: The exported file; None where a training was stopped.
        stopped: The method whose training was stopped, and why.
        rungs: What trainings had reached on their way.
        training_s: Seconds that they took.
        reused: Whether the model came from the store.
        took_s: Seconds that building it took, when that was done.
        notes: What the user should know.
    """

    model: ModelInfo | None
    stopped: tuple[str, str] | None = None
    rungs: tuple[Rung, ...] = ()
    training_s: float = 0.0
    reused: bool = False
    took_s: float = 0.0
    notes: tuple[str, ...] = ()


PREPARE = TypeAdapter(PrepareRequest)
PREPARED = TypeAdapter(PrepareReply)
BUILT = TypeAdapter(BuildReply)
INSPECTED = TypeAdapter(ModelInfo)
FLOORS: "TypeAdapter[dict[str, Floor]]" = TypeAdapter(dict[str, Floor])
QUALITY = TypeAdapter(QualityResult)


def as_json(adapter: "TypeAdapter[Any]", value: Any) -> Any:
    """A value as JSON-ready data."""
    return adapter.dump_python(value, mode="json")
