"""Messages between the main process and the builder process: plain data, as JSON."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from orchestrator.measuring.model_info import ModelInfo
from orchestrator.plugin.parameters import Choice, Number
from orchestrator.values.results import Floor, QualityResult, Rung
from orchestrator.values.search import BudgetSpec
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription, TaskSpec

ASKING = "asking "
"""Prefix of progress reports while a method computes its offer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareRequest:
    """Everything that a builder process needs to build candidates.

    Attributes:
        task: The task, with absolute references.
        methods: Names of the methods to load, or None for all that are installed.
        without_plugins: Names of plugins that are not loaded.
        budget: The run's budget, which determines the length of recovery trainings. With `budget.epochs` they are fixed.
        workspace: The run's work folder.
        offers: True to collect what the methods offer; False for a process that replaces a dead one.
        store: Folder of results that are reused in later runs, or None.
        store_bytes: Size limit of the store.
    """

    task: TaskSpec
    target: Target
    methods: tuple[str, ...] | None
    without_plugins: tuple[str, ...]
    budget: BudgetSpec
    seed: int
    workspace: str
    offers: bool = True
    store: str | None = None
    store_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferReply:
    """A method's search ranges, or the reason why it does not apply."""

    method: str
    version: int
    family: str
    parameters: tuple[Choice | Number, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReply:
    """The loaded task.

    Attributes:
        judge: The metric's part of keys of the store, or None without a store.
    """

    task: TaskDescription
    offers: tuple[OfferReply, ...]
    epochs: tuple[float, float]
    notes: tuple[str, ...] = ()
    judge: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReply:
    """The result of a build.

    Attributes:
        model: The exported file; None if a training was stopped.
        stopped: The method whose training was stopped, and the reason.
        rungs: Intermediate qualities of the trainings.
        training_s: Duration of the trainings in seconds.
        reused: True if the model came from the store.
        took_s: Duration of the original build in seconds.
        notes: Notes for the user.
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
    """Return a value as JSON-ready data."""
    return adapter.dump_python(value, mode="json")
