"""What a run leaves for people: results.json, report.html, front/ and recommended/."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.building.cache_keys import versions
from orchestrator.devices.agent import facts
from orchestrator.errors import InputError, PluginError
from orchestrator.plugin.method import Method
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime_step import PREFIX
from orchestrator.report import formatting
from orchestrator.report.card import render_card
from orchestrator.report.results import LAYERS, plain, write_results
from orchestrator.study.candidates.measurement_cache import count_reused, reuse_notes
from orchestrator.study.distributed.device_class import sharing_notes
from orchestrator.study.importance import importance
from orchestrator.study.layers import Layers, layer_table
from orchestrator.study.pareto.dominance import faster, relative_latency
from orchestrator.study.result import StudyResult, refusals
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.event_log import finished_s
from orchestrator.study.run.recipe_file import recipe_text
from orchestrator.study.run.request import RunState
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.device import HOST
from orchestrator.values.distribution import DISTRIBUTION
from orchestrator.values.files import write_atomic
from orchestrator.values.layers import LayerTable
from orchestrator.values.results import CandidateResult, RunResult, StepResult, TargetResult, TaskResult

PACKAGES = (DISTRIBUTION, "torch", "onnx", "onnxruntime", "onnxscript", "optuna", "torch-pruning", "numpy", "pluggy")


def compose(found: StudyResult, registry: Registry, run: RunDirectory) -> RunResult:
    """Everything that was found, as results.json has it."""
    state = found.state
    request, task = state.request, state.task
    recommendation = found.recommendation
    front = {c.id for c in found.front}
    reused = count_reused(found.candidates)
    methods, finished = registry.methods(), finished_s(run.log)

    def published(candidate: CandidateResult) -> CandidateResult:
        said = _in_words(_published(candidate, front), methods)
        return replace(said, finished_s=finished.get(candidate.id))

    return RunResult(
        schema=1,
        task=TaskResult(
            name=task.name,
            model=task.spec.model or "",
            data=task.spec.data or "",
            metric=task.metric,
            direction=task.direction,
            examples=dict(task.examples),
            digest=task.digest,
        ),
        target=TargetResult(
            profile=request.target.profile.name,
            title=request.target.profile.title,
            device=request.target.device,
            runtime=request.target.runtime,
            threads=request.target.threads,
            limits=asdict(request.limits),
        ),
        baseline=published(found.baseline),
        candidates=[published(c) for c in found.candidates],
        front=[c.id for c in found.front],
        recommended=recommendation.id,
        reason=recommendation.reason,
        seconds=found.seconds,
        environment=_environment(registry, found.devices),
        search={
            "name": request.preset.name,
            "sampler": request.preset.sampler,
            "seed": request.options.seed,
            "trials": request.budget.trials,
            "timeout_s": request.budget.timeout_s,
            "epochs": list(state.epochs),
            "started": state.started,
            "ended": found.ended,
            "run": str(run.path),
            "study": state.study,
            "reused": reused,
            **_options(state),
        },
        notes=[
            *state.notes,
            *refusals(state),
            *found.notes,
            *registry.notes,
            *_runtimes(found),
            *_same_recipes(found),
            *reuse_notes(reused, len(found.candidates)),
            *sharing_notes(found.candidates),
        ],
        importance=importance(found.candidates, SearchSpace(state.offers, methods), task.direction),
        layers=_layers(found, run),
    )


def _options(state: RunState) -> dict[str, Any]:
    """What else was asked for and decides what is found, as plain JSON values, for whoever compares two runs.

    The memory that a build may take is left out: it is what was free at the start, where nobody said otherwise.
    """
    request = state.request
    return {
        "methods": sorted(request.methods),
        "offered": sorted(offer.method for offer in state.offers if offer.refused is None),
        "without": sorted((*request.options.without_methods, *request.options.without_plugins)),
        "runtimes": [request.target.runtime, *request.target.alternatives],
        "training": request.preset.training,
        "early_stopping": request.preset.early_stopping,
        "useful_drop": request.useful_drop,
        "candidate_timeout_s": request.candidate_timeout_s,
        "loss": request.options.task.loss,
        "student": request.options.task.student,
        "warm_start": list(request.options.warm_start),
        "warm_share": request.options.warm_share,
        "input_shapes": {name: list(shape) for name, shape in request.options.task.input_shapes.items()},
    }


def _runtimes(found: StudyResult) -> list[str]:
    """Which runtime won, where the search tried several: the best of each on the front, by what their uncertainty leaves."""
    target = found.state.request.target
    timed = [c for c in found.front if c.artifact is not None and c.latency]
    if not target.alternatives or not timed:
        return []
    best: dict[str, CandidateResult] = {}
    for candidate in sorted(timed, key=relative_latency):
        best.setdefault(candidate.latency[0].runtime, candidate)
    first, *others = best.values()
    near = [first, *(other for other in others if not faster(first, other))]
    counts = [f"{sum(c.latency[0].runtime == name for c in timed)} on {name}" for name in (target.runtime, *target.alternatives)]
    if len(near) == 1:
        said = f"the fastest of the front runs on {first.latency[0].runtime} ({first.id})"
    else:
        which = " or ".join(f"on {c.latency[0].runtime} ({c.id})" for c in near)
        said = f"the fastest of the front runs {which}: their times cannot be told apart"
    return [f"{said}; of the front run {', '.join(counts)}"]


def _same_recipes(found: StudyResult) -> list[str]:
    """What the runtimes make of one model: recipes that were timed in several, the original among them."""
    target = found.state.request.target
    names = (target.runtime, *target.alternatives)
    complete = [c for c in (found.baseline, *found.candidates) if c.state == "complete" and c.latency]
    first = {_without_runtime(c): c for c in complete if c.latency[0].runtime == names[0]}
    said = []
    for name in names[1:]:
        there = [c for c in complete if c.latency[0].runtime == name]
        pairs = [(first[_without_runtime(c)], c) for c in there if _without_runtime(c) in first]
        ahead, behind = sum(faster(b, a) for a, b in pairs), sum(faster(a, b) for a, b in pairs)
        tried = f"{len(there)} candidate{'' if len(there) == 1 else 's'} ran on {name}"
        if not pairs:
            said.append(f"{tried}, none of them with a recipe that ran on {names[0]} too")
            continue
        both = f"{len(pairs)} recipe{'' if len(pairs) == 1 else 's'} that ran on {names[0]} too"
        won = f"{ahead} {'was' if ahead == 1 else 'were'} faster on {name}, {behind} on {names[0]}"
        said.append(f"{tried}; of {both}, {won}, and {len(pairs) - ahead - behind} cannot be told apart")
    return said


def _without_runtime(candidate: CandidateResult) -> str:
    """A candidate's recipe but for the step that names its runtime, as a key."""
    steps = [step for step in candidate.recipe if not step.method.startswith(PREFIX)]
    return json.dumps([[step.method, step.version, step.parameters] for step in steps], sort_keys=True)


def publish(result: RunResult, found: StudyResult, registry: Registry, run: RunDirectory) -> None:
    """Write everything. A folder is made under another name and put in place whole.

    Raises:
        OSError: the disk is full, ...; what stood there before is still there.
    """
    made = run.work / "publishing"
    shutil.rmtree(made, ignore_errors=True)
    (made / "front").mkdir(parents=True)
    for candidate in found.front:
        _folder(made / "front" / candidate.id, result, result.candidate(candidate.id), found, registry, run)
    run.replace_folder("front", made / "front")
    if result.recommended is not None:
        _folder(made / "recommended", result, result.candidate(result.recommended), found, registry, run)
        run.replace_folder("recommended", made / "recommended")
    else:
        shutil.rmtree(run.path / "recommended", ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)
    try:
        write_atomic(run.path / "report.html", registry.render("html", result))
    except (InputError, PluginError) as error:  # the results count more than their page
        result = replace(result, notes=[*result.notes, f"no report.html: {error}"])
    write_results(result, run.path / "results.json")  # the last: where it is, everything is


def _in_words(candidate: CandidateResult, methods: Mapping[str, Method]) -> CandidateResult:
    """The candidate with what each method says of its step. One that fails at that says nothing: no report is lost for it."""
    steps = []
    for step in candidate.recipe:
        phrase, method = "", methods.get(step.method)
        if method is not None:
            with suppress(Exception):  # a plugin's own code
                phrase = str(method.phrase(step.parameters)) or _plain_words(step, method)
        steps.append(replace(step, phrase=phrase))
    return replace(candidate, recipe=steps)


def _plain_words(step: StepResult, method: Method) -> str:
    """A step of a method that has no words for it: its name, and what is not at its default."""
    usual = {parameter.name: parameter.start for parameter in method.parameters}
    other = {name: value for name, value in step.parameters.items() if name not in usual or usual[name] != value}
    return formatting.step_words(replace(step, parameters=other))


def _layers(found: StudyResult, run: RunDirectory) -> dict[str, LayerTable]:
    """What became of each layer in the candidates of the front, where their files are ONNX and can be counted.

    Times are those of the target's first runtime; a candidate in another one has none.
    """
    target = found.state.request.target
    shapes = {spec.name: (1, *spec.shape) for spec in found.state.task.inputs}

    def layers(candidate: CandidateResult) -> Layers | None:
        path = candidate.artifact.path if candidate.artifact else None
        if candidate.artifact is None or path is None or not path.endswith(".onnx"):
            return None
        try:
            return Layers(run.path / path, target, shapes, candidate.artifact.runtime)
        except (InputError, OSError):
            return None

    original = layers(found.baseline)
    tables = {}
    for candidate in found.front:
        if original is not None and candidate.id != found.baseline.id and (own := layers(candidate)) is not None:
            tables[candidate.id] = layer_table(original, own, target)
    return tables


def _published(candidate: CandidateResult, front: set[str]) -> CandidateResult:
    """The candidate with the path where people find its file."""
    if candidate.artifact is None or candidate.artifact.path is None or candidate.id not in front:
        return candidate
    name = Path(candidate.artifact.path).name
    return replace(candidate, artifact=replace(candidate.artifact, path=f"front/{candidate.id}/{name}"))


def _folder(
    folder: Path, result: RunResult, candidate: CandidateResult, found: StudyResult, registry: Registry, run: RunDirectory
) -> None:
    folder.mkdir(parents=True)
    original = found.baseline if candidate.id == found.baseline.id else next(c for c in found.front if c.id == candidate.id)
    if original.artifact is None or original.artifact.path is None:
        return
    source = run.path / original.artifact.path
    try:
        (folder / source.name).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, folder / source.name)
    state = found.state
    usage = _usage(registry, original.artifact.runtime, source.name, state.request.target.threads)
    card = render_card(result, candidate, inputs=state.task.inputs, outputs=state.task.outputs, usage=usage)
    write_atomic(folder / "card.md", card)
    text = recipe_text(candidate.id, candidate.recipe, state.request, state.task, original.artifact.digest)
    write_atomic(folder / "recipe.toml", text)
    if (table := result.layers.get(candidate.id)) is not None:
        write_atomic(folder / LAYERS, json.dumps(plain(table)) + "\n")


def _usage(registry: Registry, runtime: str, file: str, threads: int) -> str:
    """What the runtime's plugin says of how its files are run; nothing where it fails at that."""
    with suppress(Exception):  # a plugin's own code
        return str(registry.runtimes()[runtime].usage(file, threads))
    return ""


def _environment(registry: Registry, devices: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    plugins = {p.name: f"{p.package} {p.version}" + (f" (unusable: {p.error})" if p.error else "") for p in registry.plugins}
    host = devices.get(HOST) or facts()
    boards = {reference: described for reference, described in devices.items() if reference != HOST}
    return {"host": host, **({"devices": boards} if boards else {}), "versions": versions(PACKAGES), "plugins": plugins}
