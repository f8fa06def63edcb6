"""SearchRequest and RunState: what a run does, as plain data in its run directory, sufficient for `resume`."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from orchestrator.building.protocol import OfferReply
from orchestrator.study.run.presets import SearchPreset
from orchestrator.values.search import BudgetSpec, SearchOptions
from orchestrator.values.target import Limits, Target
from orchestrator.values.task import TaskDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """A search with all names resolved and all defaults filled in.

    Attributes:
        options: The user's options, with absolute paths and the default task filled in.
        target: The resolved target.
        limits: The limits in effect: the user's, and the profile's for those that the user did not give.
        budget: The budget in effect.
        candidate_timeout_s: Seconds that the build of one candidate may take.
        memory_bytes: Memory that a build or a measurement may use.
        preset: The ready-made search.
        methods: Names of the selected methods.
        useful_drop: See SearchPreset; None if there is a limit on quality.
        folder: The user's working directory, from which their files read.
        plugins: Versions of the plugins at the start: `resume` requires the same.
        store: Folder of results that are reused in later runs, or None.
        store_bytes: Size limit of the store.
    """

    options: SearchOptions
    target: Target
    limits: Limits
    budget: BudgetSpec
    candidate_timeout_s: float
    memory_bytes: int
    preset: SearchPreset
    methods: tuple[str, ...]
    useful_drop: float | None
    folder: str
    plugins: dict[str, str] = field(default_factory=dict)
    store: str | None = None
    store_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The request and the results of the first task set-up; constant from then on.

    Attributes:
        study: Unique name of the Optuna study: a storage may be shared.
        first: Recipes of earlier runs that are proposed before all others.
        offers: Search ranges that the methods offered, so that a resumed run searches the same space.
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
