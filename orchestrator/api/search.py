"""Searches: search, resume, evaluate, build, load_run, compare_runs."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.api.resolve import (
    plan,
    plugin_versions,
    profile_named,
    resolve_target,
    simulated_device,
)
from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.paths import builds, checkpoints
from orchestrator.devices import interrupt
from orchestrator.errors import FULL, EnvironmentFailure, InputError, Interrupted, OrchestratorError, PluginError
from orchestrator.plugin.device import Device
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.runtime_step import runtime_of
from orchestrator.report.results import read_results
from orchestrator.report.run_diff import RunComparison, compared
from orchestrator.study.budget import keeping_elapsed
from orchestrator.study.engine import Engine, Observer
from orchestrator.study.publish import compose, publish
from orchestrator.study.run.directory import DONE, RunDirectory
from orchestrator.study.run.event_log import STARTS
from orchestrator.study.run.recipe_file import read_recipe
from orchestrator.study.run.request import RunState, SearchRequest
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.events import SearchStarted
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, RunResult
from orchestrator.values.search import BudgetSpec, SearchOptions, with_values


def ignore_event(event: dict[str, Any]) -> None:
    """Ignore events."""


def search(
    options: SearchOptions | None = None, *, output: str | Path | None = None, observer: Observer = ignore_event, **values: Any
) -> RunResult:
    """Find the Pareto-optimal models for a target.

    Args:
        options: The options; or give fields by name: `search(target="raspberry-pi", trials=20)`.
        output: The run directory, or None for a new one under `runs/`.
        observer: Called with a dict for every event.
        **values: Fields of the options, of its task, budget and limits.

    Returns:
        The results; the files are in the run directory `result.search["run"]`.

    Raises:
        InputError: An option cannot be used; nothing has been written.
        EnvironmentFailure: The disk is full, the run directory is in use, ...
        Interrupted: The user interrupted it; `resume` continues.
    """
    started = time.monotonic()
    options = with_values(options or SearchOptions(), values)
    registry = Registry.discover(without=options.without_plugins)
    request, runtime, devices = plan(options, registry)
    path = Path(output) if output is not None else new_run(request.target.profile.name)
    existed = path.exists()
    run = RunDirectory.create(path)
    with run.locked(), surroundings(run):
        run.clear()
        run.event(event=STARTS)
        try:
            return _run(run, request, None, registry, runtime, devices, started, observer)
        except BaseException:
            if not run.begun:  # leave nothing behind
                shutil.rmtree(run.work if existed else run.path, ignore_errors=True)
                run.discard()
                if output is None:
                    with suppress(OSError):
                        run.path.parent.rmdir()  # runs/, if it was created for this run
            raise


def resume(
    run_directory: str | Path, *, trials: int | None = None, timeout_s: float | None = None, observer: Observer = ignore_event
) -> RunResult:
    """Continue a run that was stopped in any way, or extend its budget.

    Args:
        run_directory: The run directory.
        trials: New budget of candidates, including those of the run; None to keep it.
        timeout_s: Seconds to continue for; None for the rest of the run's own budget.
        observer: Called with a dict for every event.

    Raises:
        InputError: There is no run directory; or plugins, model or data have changed.
    """
    started = time.monotonic()
    check_trials(trials)
    run = RunDirectory.open(Path(run_directory))
    with run.locked(), surroundings(run):
        state = with_budget(run, trials=trials, timeout_s=timeout_s)
        request = state.request
        registry = Registry.discover(without=request.options.without_plugins, strict=False)
        same_plugins(request.plugins, plugin_versions(registry))
        runtime = registry.runtimes()[request.target.runtime]
        _, _, devices = resolve_target(
            request.target.profile,
            registry,
            runtimes=[request.target.runtime],
            device=request.target.simulator or request.target.device,
        )
        run.event(event=STARTS)
        return _run(run, request, state, registry, runtime, devices, started, observer)


def check_trials(trials: int | None) -> None:
    """Raise InputError if a budget of candidates is not positive."""
    if trials is not None and trials < 1:
        raise InputError(f"--trials must be 1 or more, but got {trials}")


def with_budget(run: RunDirectory, *, trials: int | None, timeout_s: float | None) -> RunState:
    """Return the state of a run, with a new budget stored; the caller holds the run's lock.

    Args:
        run: The run directory.
        trials: Number of all candidates; None to keep it, unless `timeout_s` is given.
        timeout_s: Seconds to continue for; None to keep the budget, unless `trials` is given.
    """
    state = run.state()
    if trials is None and timeout_s is None:
        return state
    total_s = None if timeout_s is None else run.elapsed() + timeout_s
    budget = replace(state.request.budget, trials=trials, timeout_s=total_s)
    state = replace(state, request=replace(state.request, budget=budget))
    run.write_state(state)
    return state


def load_run(path: str | Path) -> RunResult:
    """Load the results of a run directory or of a results.json.

    Raises:
        InputError: There are none, or they are damaged.
    """
    return read_results(Path(path))


def compare_runs(a: str | Path, b: str | Path) -> RunComparison:
    """Compare two runs: settings, versions, plugins, values, fronts, and the hypervolume if it is comparable.

    Args:
        a: A run directory, or its results.json.
        b: The other one.

    Raises:
        InputError: One of them is not a run, or is damaged.
    """
    return compared(load_run(a), load_run(b), (str(a), str(b)))


def preview(options: SearchOptions) -> tuple[SearchRequest, RunState, SearchSpace]:
    """Check everything and compute the search space, without a trial: `orchestrate search --dry-run`."""
    started = time.monotonic()
    registry = Registry.discover(without=options.without_plugins)
    request, runtime, devices = plan(options, registry)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run")
        unwaiting = replace(request, options=replace(request.options, wait_for_device_s=0.0))
        engine = _engine(run, unwaiting, registry, runtime, devices, started=started, observer=ignore_event)
        workshop = engine.builder(None)
        try:
            with interrupt.heard(), closing(engine):
                engine.connect()
                state = engine.prepare(None, workshop)
        finally:
            workshop.close()
    return request, state, SearchSpace(state.offers, registry.methods())


def build(
    recipe: str | Path, output: str | Path, *, without_plugins: tuple[str, ...] = (), observer: Observer = ignore_event
) -> Path:
    """Rebuild one candidate from its recipe.toml.

    Args:
        recipe: The recipe.toml.
        output: A new folder for the model.
        without_plugins: Plugins that are not loaded, if two provide a method of one name.
        observer: Called with a dict for every event.

    Returns:
        The path of the exported model.

    Raises:
        InputError: The recipe cannot be read, or its model or data have changed.
        JobFailed: A step failed.
    """
    file = read_recipe(Path(recipe))
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output '{folder}' is not empty; give a new folder")
    options = SearchOptions(
        target=file.target,
        task=file.task,
        seed=file.seed,
        threads=file.threads,
        runtimes=tuple(dict.fromkeys((file.runtime, *([other] if (other := runtime_of(file.recipe)) else [])))),
        budget=BudgetSpec(trials=1),
        methods=tuple(dict.fromkeys(step.method for step in file.steps)),
        without_plugins=without_plugins,
    )
    registry = Registry.discover(without=without_plugins)
    request, runtime, devices = plan(options, registry)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory.create(Path(scratch) / "run")
        engine = _engine(run, request, registry, runtime, devices, started=time.monotonic(), observer=observer)
        workshop = engine.builder(None)
        try:
            with interrupt.heard():
                prepared = workshop.prepare()
                if prepared.task.weights_digest != file.weights_digest:
                    raise InputError(f"the weights of '{file.task.model}' are not those that the recipe was made for")
                if prepared.task.data_digest != file.data_digest:
                    raise InputError(f"the data of '{file.task.data}' are not those that the recipe was made for")
                built = workshop.build(file.recipe, run.folder("built"), timeout_s=request.candidate_timeout_s).model
        finally:
            workshop.close()
        if built is None:
            raise RuntimeError("a build that is not stopped has a model")
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / Path(built.path).name
        shutil.copyfile(built.path, final)
        if built.digest != file.model_digest:
            engine.note("the file is not the same to the byte: other versions, or another machine")
    return final


def evaluate(
    options: SearchOptions, recipes: Sequence[Recipe], *, output: str | Path | None = None, observer: Observer = ignore_event
) -> list[CandidateResult]:
    """Build, score and time given recipes beside the original, without searching.

    Args:
        options: The task and the target; budgets, limits and methods are ignored.
        recipes: The recipes.
        output: A new folder for the models, or None to discard them.
        observer: Called with a dict for every event.

    Returns:
        The original first, then a result for each recipe, in order. A failed one has its reason in `failure`.

    Raises:
        InputError: An option cannot be used, or a recipe names a method that is not installed.
    """
    if output is not None and Path(output).is_dir() and any(Path(output).iterdir()):
        raise InputError(
            f"output '{output}' is not empty; give a new folder"
        )  # the original of an earlier call may be another model
    methods = tuple(dict.fromkeys(step.method for recipe in recipes for step in recipe.steps))
    registry = Registry.discover(without=options.without_plugins)
    named = (*options.runtimes, *(name for recipe in recipes if (name := runtime_of(recipe))))
    if len(named) > len(options.runtimes) and not options.runtimes:
        named = (resolve_target(profile_named(options.target, registry), registry)[0].runtime, *named)
    budget = replace(options.budget, trials=max(1, len(recipes)), timeout_s=None)
    requested = replace(options, methods=methods, budget=budget, runtimes=tuple(dict.fromkeys(named)))
    request, runtime, devices = plan(requested, registry)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory.create(Path(output) if output is not None else Path(scratch) / "run")
        engine = _engine(run, request, registry, runtime, devices, started=time.monotonic(), observer=observer)
        workshop = engine.builder(None)
        try:
            with run.locked(), interrupt.heard(), closing(engine):
                engine.connect()
                state = engine.prepare(None, workshop)
                results = [engine.baseline(state, workshop)]
                results += [engine.evaluate(recipe, state, workshop) for recipe in recipes]
        finally:
            workshop.close()
    return results


def _engine(
    run: RunDirectory,
    request: SearchRequest,
    registry: Registry,
    runtime: Runtime,
    devices: Sequence[Device],
    *,
    started: float,
    observer: Observer,
) -> Engine:
    simulated = simulated_device(request.target, registry)
    return Engine(run, request, registry, runtime, devices, simulated=simulated, started=started, observer=observer)


def _run(
    run: RunDirectory,
    request: SearchRequest,
    state: RunState | None,
    registry: Registry,
    runtime: Runtime,
    devices: tuple[Device, ...],
    started: float,
    observer: Observer,
) -> RunResult:
    engine = _engine(run, request, registry, runtime, devices, started=started, observer=observer)
    workshop: BuilderClient = engine.builder(state)
    try:
        with interrupt.heard(), closing(engine), keeping_elapsed(run, engine.elapsed):
            engine.connect()
            prepared = engine.prepare(state, workshop)
            baseline = engine.baseline(prepared, workshop, begins=state is None)
            registry.search_started(_started(engine, prepared, baseline, run, resumed=state is not None))
            try:
                found = engine.finish(engine.search(prepared, workshop), workshop)
            except (Interrupted, EnvironmentFailure, OSError) as error:
                failure = _of_surroundings(error, run) if isinstance(error, OSError) else error
                if failure is not None:
                    with suppress(*([] if isinstance(failure, Interrupted) else [OSError])):  # the disk itself may have failed
                        _publish_so_far(engine, prepared, failure, registry, run)
                raise
            result = compose(found, registry, run)
            publish(result, found, registry, run)
            _tell_end(engine, registry, result)
            run.write_elapsed(engine.elapsed())
            if not any(c.state == "stopped" and c.rungs for c in found.candidates):  # these may be resumed
                shutil.rmtree(checkpoints(builds(run.work)), ignore_errors=True)  # of candidates that ran out of time
            run.event(event=DONE, recommended=result.recommended, ended=found.ended)
            return result
    except Interrupted:
        ways_on = f"continue with: orchestrate resume {run.path}" if run.begun else "nothing was begun yet"
        raise Interrupted(f"interrupted; {ways_on}") from None
    finally:
        workshop.close()


def _publish_so_far(engine: Engine, state: RunState, error: OrchestratorError, registry: Registry, run: RunDirectory) -> None:
    """Publish the results of an interrupted run."""
    run.write_elapsed(engine.elapsed())
    ended = "it was interrupted" if isinstance(error, Interrupted) else str(error)
    partial = engine.partial_result(state, ended)
    if partial is not None:
        result = compose(partial, registry, run)
        publish(result, partial, registry, run)
        _tell_end(engine, registry, result)


def _started(engine: Engine, state: RunState, baseline: CandidateResult, run: RunDirectory, *, resumed: bool) -> SearchStarted:
    request = state.request
    return SearchStarted(
        run=str(run.path.resolve()),
        resumed=resumed,
        known=engine.tried,
        task=state.task,
        target=request.target,
        trials=request.budget.trials,
        timeout_s=request.budget.timeout_s,
        baseline=baseline,
        methods=tuple(offer.method for offer in state.offers if offer.refused is None),
        parameters={"search": request.preset.name, "sampler": request.preset.sampler, "seed": str(request.options.seed)},
    )


def _tell_end(engine: Engine, registry: Registry, result: RunResult) -> None:
    """Notify the plugins; their errors are too late for results.json and go to the log."""
    before = len(registry.notes)
    registry.search_ended(result)
    for note in registry.notes[before:]:
        engine.note(note)


@contextmanager
def surroundings(run: RunDirectory) -> Iterator[None]:
    """End the run with one line if the disk is full or read-only or files vanish; it can be resumed after that is fixed."""
    try:
        yield
    except EnvironmentFailure as error:
        raise EnvironmentFailure(f"{error}; fix it, then {_way_on(run)}") from error
    except OSError as error:
        failure = _of_surroundings(error, run)
        if failure is None:
            raise
        raise EnvironmentFailure(f"{failure}; fix it, then {_way_on(run)}") from error


def _of_surroundings(error: OSError, run: RunDirectory) -> EnvironmentFailure | None:
    """Return the error for a full disk or vanished files, or None if it has another cause."""
    path = None if error.filename is None else Path(str(error.filename))
    inside = path is not None and path.is_relative_to(run.path)
    if path is not None and inside and isinstance(error, FileNotFoundError):
        gone = next((folder for folder in reversed(path.parents) if not folder.exists()), path)
        return EnvironmentFailure(f"'{gone}' was deleted during the run")
    if inside or error.errno in FULL:
        return EnvironmentFailure(f"{error.strerror} ({error.filename or run.path})")
    return None


def _way_on(run: RunDirectory) -> str:
    return f"continue with: orchestrate resume {run.path}" if run.begun else "begin again"


def new_run(name: str) -> Path:
    """Return a folder in `runs/` that does not exist yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stamp}-{name}"
    return next(p for p in (base, *(base.with_name(f"{base.name}-{k}") for k in range(2, 1000))) if not p.exists())


def same_plugins(before: dict[str, str], now: dict[str, str]) -> None:
    """Raise PluginError if a plugin of the run has another version, or is gone."""
    # New plugins are harmless: the search space was fixed at the start of the run.
    changed = [
        f"{name}: {version} before, {now.get(name, 'not there')} now"
        for name, version in before.items()
        if now.get(name) != version
    ]
    if changed:
        what = "; ".join(changed)
        raise PluginError(f"the plugins are not those that the run began with ({what}); install the same or begin a new run")


__all__ = ["SearchOptions", "build", "load_run", "preview", "profile_named", "resume", "search"]
