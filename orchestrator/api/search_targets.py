"""Several targets in one run: a common folder with a run directory for each, searched one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.api import search
from orchestrator.api.resolve import plan, plugin_versions
from orchestrator.errors import EnvironmentFailure, InputError, Interrupted
from orchestrator.plugin.registry import Registry
from orchestrator.study.engine import Observer
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.event_log import STARTS
from orchestrator.values.files import write_atomic
from orchestrator.values.results import RunResult
from orchestrator.values.search import SearchOptions, with_values

FILE = "targets.json"
LEAST_SHARE = 0.5
"""Smallest part of its equal share of the time that a target gets in any case."""
SCHEMA = 1
PLANNED = ("model", "data", "metric", "loss", "student", "storage", "artifacts")
"""References that planning has made absolute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRun:
    """One of the targets.

    Attributes:
        folder: Name of its run directory in the common folder.
        options: Its options, with the time budget of all targets.
        timeout_s: Its own time budget, set by an extension before it had started; None for its share.
    """

    folder: str
    options: SearchOptions
    timeout_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    schema: int
    targets: tuple[TargetRun, ...]


_FORM: TypeAdapter[_File] = TypeAdapter(_File)


class Targets:
    """The runs for several targets in one folder.

    Models of an earlier target are timed on a later one first: its recipes come before all others, and the store holds
    their models. The time budget is shared: what earlier targets do not use is left to the later ones.

    Attributes:
        path: The common folder.
        runs: The runs in the order in which they are searched.
    """

    def __init__(self, path: Path, runs: tuple[TargetRun, ...]) -> None:
        self.path, self.runs = path.resolve(), runs

    @classmethod
    def begin(cls, options: SearchOptions, targets: Sequence[str], output: str | Path | None = None) -> "Targets":
        """Check that all targets can be searched, and create the folder.

        Args:
            options: Options of all targets; its own target is ignored.
            targets: Names or files of profiles.
            output: A new folder, or None for one in `runs/`.

        Raises:
            InputError: A target cannot be searched, or the folder is not empty; nothing has been written.
        """
        runs = tuple(
            TargetRun(folder=folder, options=replace(options, target=target))
            for folder, target in zip(_folders(targets), targets, strict=True)
        )
        registry = Registry.discover(without=options.without_plugins)
        # Resolved options have absolute paths: the run may be resumed from another folder.
        runs = tuple(replace(run, options=plan(run.options, registry)[0].options) for run in runs)
        path = Path(output) if output is not None else search.new_run("+".join(run.folder for run in runs)[:100])
        if (path / FILE).exists():
            raise InputError(f"--output '{path}' holds a run already; continue with: orchestrate resume {path}")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"--output '{path}' is not an empty folder; give a new one")
        several = cls(path, runs)
        try:
            path.mkdir(parents=True, exist_ok=True)
            several._write()
        except OSError as error:
            raise InputError(f"--output '{path}' cannot be written: {error.strerror}") from None
        return several

    @classmethod
    def holds(cls, path: str | Path) -> bool:
        """Return True if a folder belongs to several targets."""
        return (Path(path) / FILE).is_file()

    @classmethod
    def open(cls, path: str | Path) -> "Targets":
        """Open an existing folder.

        Raises:
            InputError: Its list of targets is missing or damaged.
        """
        file = Path(path) / FILE
        try:
            found = _FORM.validate_json(file.read_bytes())
        except OSError as error:
            raise InputError(f"'{file}' cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise InputError(f"'{file}' was not written by this version: {error.errors()[0]['msg']}") from None
        return cls(Path(path), found.targets)

    def extend(self, *, trials: int | None = None, timeout_s: float | None = None) -> None:
        """Give all targets a new budget, stored before the first one continues.

        Args:
            trials: New budget of candidates for each target; None to keep it.
            timeout_s: More seconds for all targets together; None for the rest.

        Raises:
            InputError: The budget is invalid.
            PluginError: The plugins of a run have changed.
            RunInUseError: Another process searches for one of the targets.
            EnvironmentFailure: The folder cannot be written.
        """
        if trials is None and timeout_s is None:
            return
        search.check_trials(trials)
        each = None if timeout_s is None else timeout_s / len(self.runs)
        begun = [run for target in self.runs if (run := RunDirectory(self.path / target.folder)).begun]
        for run in begun:  # before anything is written: a run that cannot be resumed stays finished
            request = run.state().request
            registry = Registry.discover(without=request.options.without_plugins, strict=False)
            search.same_plugins(request.plugins, plugin_versions(registry))
        for run in begun:
            with self._way_on(), run.locked(), search.surroundings(run):
                run.event(event=STARTS)  # no longer finished
                search.with_budget(run, trials=trials, timeout_s=each)

        def extended(target: TargetRun) -> TargetRun:
            options = target.options if trials is None else with_values(target.options, {"trials": trials})
            return replace(target, options=options, timeout_s=target.timeout_s if each is None else each)

        self.runs = tuple(extended(target) for target in self.runs)
        try:
            self._write()
        except OSError as error:
            raise EnvironmentFailure(f"'{self.path}' cannot be written: {error.strerror}") from None

    def search(self, k: int, before: Sequence[RunResult], *, observer: Observer = search.ignore_event) -> RunResult:
        """Search for one target, or resume it; a finished one is only read.

        Args:
            k: Index of the target.
            before: The results of the targets before it.
            observer: Called with a dict for every event.

        Raises:
            Interrupted: As `search`; `orchestrate resume` of the common folder continues.
        """
        target = self.runs[k]
        path = self.path / target.folder
        run = RunDirectory(path)
        with self._way_on():
            if not run.begun:
                options = following(target.options, before, targets=len(self.runs))
                if target.timeout_s is not None:
                    options = with_values(options, {"timeout_s": target.timeout_s})
                return search.search(options, output=path, observer=observer)
            if run.done:
                return search.load_run(path)
            return search.resume(path, observer=observer)

    def _write(self) -> None:
        write_atomic(self.path / FILE, _FORM.dump_json(_File(schema=SCHEMA, targets=self.runs), indent=1))

    @contextmanager
    def _way_on(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            raise Interrupted(f"interrupted; continue with: orchestrate resume {self.path}") from None
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"{error} (all targets: orchestrate resume {self.path})") from error


def search_targets(
    options: SearchOptions | None = None,
    *,
    targets: Sequence[str],
    output: str | Path | None = None,
    observer: Observer = search.ignore_event,
    **values: Any,
) -> list[RunResult]:
    """Find the Pareto-optimal models for several targets: what is built for one is timed on all.

        orchestrator.search_targets(targets=["raspberry-pi-4", "host"], model="model.py:network", data="data.py:splits")

    Args:
        options: Options of all targets; or give fields by name.
        targets: Names or files of profiles, searched in this order.
        output: The common folder, or None for a new one under `runs/`.
        observer: Called with a dict for every event.
        **values: Fields of the options.

    Returns:
        The results for each target, in order.

    Raises:
        InputError: An option cannot be used; nothing has been written.
        EnvironmentFailure: The disk is full, the run directory is in use, ...
        Interrupted: The user interrupted it; `resume_targets` continues.
    """
    several = Targets.begin(with_values(options or SearchOptions(), values), targets, output)
    return _all(several, lambda k, before: several.search(k, before, observer=observer))


def resume_targets(
    folder: str | Path, *, trials: int | None = None, timeout_s: float | None = None, observer: Observer = search.ignore_event
) -> list[RunResult]:
    """Continue the runs for several targets: finished ones are read, a stopped one is resumed, the others are started.

    Args:
        folder: The common folder.
        trials: New budget of candidates for each target; None to keep it.
        timeout_s: More seconds for all targets together; None for the rest.
        observer: Called with a dict for every event.

    Raises:
        InputError: There is no such folder; or plugins, model or data have changed.
    """
    several = Targets.open(folder)
    several.extend(trials=trials, timeout_s=timeout_s)
    return _all(several, lambda k, before: several.search(k, before, observer=observer))


def _all(several: Targets, search: Callable[[int, list[RunResult]], RunResult]) -> list[RunResult]:
    results: list[RunResult] = []
    for k in range(len(several.runs)):
        results.append(search(k, results))
    return results


def following(options: SearchOptions, before: Sequence[RunResult], *, targets: int) -> SearchOptions:
    """Return the options for the next of several targets.

    Args:
        options: Options for this target, with the time budget of the whole run.
        before: The results of the targets before it.
        targets: Number of all targets.
    """
    runs = tuple(str(result.search["run"]) for result in before)
    timeout_s = options.budget.timeout_s
    if timeout_s is not None:
        left = timeout_s - sum(result.seconds["total"] for result in before)
        timeout_s = max(LEAST_SHARE * timeout_s / targets, left / (targets - len(before)))
    budget = replace(options.budget, timeout_s=timeout_s)
    if not runs:
        return replace(options, budget=budget)
    least, most = before[0].search["epochs"]  # with other epochs no recipe would match one that was built before
    warm_start = (*runs, *options.warm_start)
    return replace(options, budget=replace(budget, epochs=(least, most)), warm_start=warm_start, warm_share=1.0)


def _folders(targets: Sequence[str]) -> list[str]:
    """Return the names of the targets' run directories, numbered if a name occurs twice."""
    names = [Path(target).stem if target.endswith(".toml") else target for target in targets]
    return [name if names.count(name) == 1 else f"{name}-{k}" for k, name in enumerate(names, 1)]
