"""What a run was asked to do: all of it plain data, kept in the run directory, so that `resume` needs nothing else."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from orchestrator.building.protocol import OfferReply
from orchestrator.values.target import Limits, Target
from orchestrator.values.task import TaskDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """A search, with every reference absolute and every default filled in.

    Attributes:
        limits: What a model must keep: the user's limits, and the profile's where the user named none.
        asked: The user's limits alone.
        useful_drop: See SearchSettings; None where a limit on quality was asked for.
        trials, timeout_s: The budget; the first that is reached ends the search.
        target_reference: The target as the user named it, for `build`.
        student: The reference of a network to distil into.
        folder: The user's working folder, from which their files read.
        methods: Names of the methods that take part.
        candidate_timeout_s: Time that one candidate's build may take.
        memory_bytes: Memory that a build or a measurement may take.
        plugins: Versions of the plugins at the start: `resume` wants the same.
        warm_start: Directories of earlier runs, whose models are tried first.
        warm_share: The most of the trials that are spent on these.
        epochs: The range of the epochs of recoveries; None: as many as the budget pays for.
        early_stopping: Whether candidates are stopped that can no longer reach the front.
        store: The folder in which results are kept for other runs; None: none is.
        store_bytes: The bound of its size.
        wait_for_device_s: How long to wait for a device that is lost before the search ends; 0: not at all.
        artifacts: Where the processes of a shared search exchange files; None: in the run directory.
        worker_timeout_s: After so many seconds without a sign of life a process of a shared search is taken for dead.
    """

    task_name: str
    model: str
    data: str
    metric: str | None
    loss: str | None
    student: str | None
    target: Target
    target_reference: str
    folder: str
    limits: Limits
    asked: Limits
    useful_drop: float | None
    search: str
    sampler: str
    trials: int | None
    timeout_s: float | None
    training: bool
    methods: tuple[str, ...]
    without_methods: tuple[str, ...]
    without_plugins: tuple[str, ...]
    candidate_timeout_s: float
    memory_bytes: int
    seed: int
    storage: str | None
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    wait_for_device_s: float = 300.0
    store: str | None = None
    store_bytes: int = 0
    artifacts: str | None = None
    worker_timeout_s: float = 60.0
    warm_start: tuple[str, ...] = ()
    warm_share: float = 2 / 3
    early_stopping: bool = True
    epochs: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The request and what the first preparation found; fixed from then on.

    Attributes:
        study: The Optuna study's name, which no other run has: a storage may be shared.
        first: Recipes of earlier runs that are asked for before all others.
        offers: What the methods offered, so that a resumed run searches the same space.
    """

    request: SearchRequest
    task: TaskDescription
    study: str
    offers: tuple[OfferReply, ...]
    epochs: tuple[float, float]
    notes: tuple[str, ...]
    started: str
    seconds_preparing: float
    first: list[list[dict[str, Any]]] = field(default_factory=list)


RUN_STATE = TypeAdapter(RunState)
