"""Several targets in one run: a folder with a run directory for each, searched one after the other, that goes on as one."""

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
"""Of its equal share of the time: what a target has left in any case."""
SCHEMA = 1
PLANNED = ("model", "data", "metric", "loss", "student", "storage", "artifacts")
"""References that planning has made absolute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRun:
    """One of the targets.

    Attributes:
        folder: The name of its run directory in the common folder.
        options: As the user said them, with the budget of time of all targets.
        timeout_s: A budget of time of its own, that a resumption gave it before it had begun; None: its share.
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

    What was built for an earlier target is timed on a later one first: its recipes come before all others, and the store holds
    their models. A budget of time is shared: what earlier targets leave over goes to the later ones.

    Attributes:
        path: The common folder.
        runs: In the order in which they are searched.
    """

    def __init__(self, path: Path, runs: tuple[TargetRun, ...]) -> None:
        self.path, self.runs = path.resolve(), runs

    @classmethod
    def begin(cls, options: SearchOptions, targets: Sequence[str], output: str | Path | None = None) -> "Targets":
        """Check that all of them can be searched, and make the folder.

        Args:
            options: For all of them; its own target does not matter.
            targets: Names or files of profiles.
            output: A new folder; None: one in `runs/`.

        Raises:
            InputError: one of the targets cannot be searched, or the folder holds something; nothing has been written.
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
            raise InputError(f"--output '{path}' holds a run already; go on with: orchestrate resume {path}")
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
        """Whether a folder is that of several targets."""
        return (Path(path) / FILE).is_file()

    @classmethod
    def open(cls, path: str | Path) -> "Targets":
        """A folder that exists.

        Raises:
            InputError: it has no file that tells the targets, or a damaged one.
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
        """Give all targets a new budget, written down before the first goes on: stopped after that, `resume` keeps to it.

        Args:
            trials: A new budget of candidates for each target; None: as before.
            timeout_s: More seconds, for all targets together; None: what is left.

        Raises:
            InputError: that is no budget.
            PluginError: the plugins are not those that one of them began with.
            RunInUseError: another process searches for one of them.
            EnvironmentFailure: the folder cannot be written.
        """
        if trials is None and timeout_s is None:
            return
        search.check_trials(trials)
        each = None if timeout_s is None else timeout_s / len(self.runs)
        begun = [run for target in self.runs if (run := RunDirectory(self.path / target.folder)).begun]
        for run in begun:  # before anything is written: what cannot go on stays done
            request = run.state().request
            registry = Registry.discover(without=request.options.without_plugins, strict=False)
            search.same_plugins(request.plugins, plugin_versions(registry))
        for run in begun:
            with self._way_on(), run.locked(), search.surroundings(run):
                run.event(event=STARTS)  # it is not done any more
                search.with_budget(run, trials=trials, timeout_s=each)

        def extended(target: TargetRun) -> TargetRun:
            options = target.options if trials is None else with_values(target.options, {"trials": trials})
            return replace(target, options=options, timeout_s=target.timeout_s if each is None else each)

        self.runs = tuple(extended(target) for target in self.runs)
        try:
            self._write()
        except OSError as error:
            raise EnvironmentFailure(f"'{self.path}' cannot be written: {error.strerror}") from None

    def search(self, k: int, before: Sequence[RunResult], *, observer: Observer = search.nobody) -> RunResult:
        """Search for one target: from the start, or on from where it stopped; what is done is only read.

        Args:
            k: Which, from 0 on.
            before: The results for the targets before it.

        Raises:
            Interrupted: as `search`; `orchestrate resume` of the common folder goes on.
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
            raise Interrupted(f"interrupted; go on with: orchestrate resume {self.path}") from None
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"{error} (all targets: orchestrate resume {self.path})") from error


def search_targets(
    options: SearchOptions | None = None,
    *,
    targets: Sequence[str],
    output: str | Path | None = None,
    observer: Observer = search.nobody,
    **said: Any,
) -> list[RunResult]:
    """Find the Pareto-optimal models for several targets: what is built for one is timed on all.

        orchestrator.search_targets(targets=["raspberry-pi-4", "host"], model="model.py:network", data="data.py:splits")

    Args:
        options: For all of them; or give its fields by name.
        targets: Names or files of profiles, searched in this order.
        output: The folder that gets a run directory for each; by default a new one under `runs/`.
        observer: Called with a dict for every event.

    Returns:
        The results for each target, in order.

    Raises:
        InputError: something that was given cannot be used; nothing has been written.
        EnvironmentFailure: the disk is full, the run directory is in use, ...
        Interrupted: the user stopped it; `resume_targets` goes on.
    """
    several = Targets.begin(with_values(options or SearchOptions(), said), targets, output)
    return _all(several, lambda k, before: several.search(k, before, observer=observer))


def resume_targets(
    folder: str | Path, *, trials: int | None = None, timeout_s: float | None = None, observer: Observer = search.nobody
) -> list[RunResult]:
    """Go on with the runs for several targets: those that are done are read, one that was stopped goes on, the others begin.

    Args:
        folder: The common folder.
        trials: A new budget of candidates for each target; None: as before.
        timeout_s: More seconds, for all targets together; None: what is left.

    Raises:
        InputError: no such folder; or plugins, model or data are not those that it began with.
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
    """The options for the next of several targets, after the searches for those before it.

    Args:
        options: For this target, with the budget of time of the whole run.
        before: The results for the targets before it.
        targets: How many there are in all.
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
    """The name of each target's run directory: its own, numbered where it is not the only one of that name."""
    names = [Path(target).stem if target.endswith(".toml") else target for target in targets]
    return [name if names.count(name) == 1 else f"{name}-{k}" for k, name in enumerate(names, 1)]
