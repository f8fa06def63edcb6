"""SearchOptions and BudgetSpec: what a search is asked to do, as plain data."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from orchestrator.errors import InputError, unknown
from orchestrator.values.target import Limits
from orchestrator.values.task import TaskSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetSpec:
    """The budget of a search. The first of `trials` and `timeout_s` that is reached ends it.

    Attributes:
        trials: Number of different recipes, or None for no limit.
        timeout_s: Seconds of the whole command, or None for no limit.
        epochs: (least, most) epochs of recovery trainings, or None for as many as the budget allows.
    """

    trials: int | None = None
    timeout_s: float | None = None
    epochs: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions:
    """The options of `orchestrate search`; its help describes each. None means the default.

    Attributes:
        target: Name, alias or TOML file of a hardware profile.
        task: The model, the data and what belongs to them.
        search: Name or TOML file of a ready-made search.
        budget: Fields that are None come from the ready-made search.
        limits: Limits that a recommended model satisfies.
        methods: Names of methods that are searched; empty for the search's own.
        without_methods: Names of methods that are left out.
        runtimes: Names of runtimes; with several the search tries each of them.
        without_plugins: Names of plugins that are not loaded.
        device: Reference of the device that times candidates; None for the profile's.
        threads: Threads of one inference; None for the profile's.
        seed: Seed of everything random.
        storage: URL of a storage that several machines share.
        artifacts: URL of the exchange of a shared search.
        worker_timeout_s: Seconds without a heartbeat after which a process of a shared search is considered dead.
        wait_for_device_s: Seconds to wait for a device that is lost.
        store: Folder of results that are reused in later runs, or "none".
        warm_start: Run directories whose models are tried first.
        warm_share: Largest share of the trials that is spent on these.
    """

    target: str = "host"
    task: TaskSpec = field(default_factory=TaskSpec)
    search: str = "quick"
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    limits: Limits = field(default_factory=Limits)
    methods: tuple[str, ...] = ()
    without_methods: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    without_plugins: tuple[str, ...] = ()
    device: str | None = None
    threads: int | None = None
    seed: int = 0
    storage: str | None = None
    artifacts: str | None = None
    worker_timeout_s: float = 60.0
    wait_for_device_s: float = 300.0
    store: str | None = None
    warm_start: tuple[str, ...] = ()
    warm_share: float = 2 / 3


PARTS: dict[str, type[Any]] = {"task": TaskSpec, "budget": BudgetSpec, "limits": Limits}


def with_values(options: Any, given: dict[str, Any]) -> Any:
    """Return options with the given values, where fields of nested parts can be named directly.

    Args:
        options: A dataclass with any of the fields `task`, `budget` and `limits`.
        given: Values by the names of fields of `options` or of these parts: `{"max_drop": 0.01, "seed": 1}`.

    Raises:
        InputError: A name is unknown.
    """
    own = {f.name for f in fields(options)}
    parts = {f.name: part for part, kind in PARTS.items() if part in own for f in fields(kind)}
    whole = {name: value for name, value in given.items() if name in own}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if name in own:
            continue
        if name not in parts:
            raise InputError(unknown("option", name, own | set(parts)))
        nested.setdefault(parts[name], {})[name] = value
    options = replace(options, **whole)
    return replace(options, **{part: replace(getattr(options, part), **values) for part, values in nested.items()})
