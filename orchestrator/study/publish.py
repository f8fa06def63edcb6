"""The published files of a run: results.json, report.html, front/ and recommended/."""

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


def compose(study: StudyResult, registry: Registry, run: RunDirectory) -> RunResult:
    """Return the result of a run as results.json holds it."""
    state = study.state
    request, task = state.request, state.task
    recommendation = study.recommendation
    front = {c.id for c in study.front}
    reused = count_reused(study.candidates)
    methods, finished = registry.methods(), finished_s(run.log)

    def published(candidate: CandidateResult) -> CandidateResult:
        candidate = _with_phrases(_published(candidate, front), methods)
        return replace(candidate, finished_s=finished.get(candidate.id))

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
        baseline=published(study.baseline),
        candidates=[published(c) for c in study.candidates],
        front=[c.id for c in study.front],
        recommended=recommendation.id,
        reason=recommendation.reason,
        seconds=study.seconds,
        environment=_environment(registry, study.devices),
        search={
            "name": request.preset.name,
            "sampler": request.preset.sampler,
            "seed": request.options.seed,
            "trials": request.budget.trials,
            "timeout_s": request.budget.timeout_s,
            "epochs": list(state.epochs),
            "started": state.started,
            "ended": study.ended,
            "run": str(run.path),
            "study": state.study,
            "reused": reused,
            **_options(state),
        },
        notes=[
            *state.notes,
            *refusals(state),
            *study.notes,
            *registry.notes,
            *_runtimes(study),
            *_same_recipes(study),
            *reuse_notes(reused, len(study.candidates)),
            *sharing_notes(study.candidates),
        ],
        importance=importance(study.candidates, SearchSpace(state.offers, methods), task.direction),
        layers=_layers(study, run),
    )


def _options(state: RunState) -> dict[str, Any]:
    """Return the further options that influence the result, as plain JSON values, for comparisons of runs.

    The memory of a build is left out: by default it is what was free at the start.
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


def _runtimes(study: StudyResult) -> list[str]:
    """Return the fastest runtime of the front within its uncertainty, as a note, if the search tried several."""
    target = study.state.request.target
    timed = [c for c in study.front if c.artifact is not None and c.latency]
    if not target.alternatives or not timed:
        return []
    best: dict[str, CandidateResult] = {}
    for candidate in sorted(timed, key=relative_latency):
        best.setdefault(candidate.latency[0].runtime, candidate)
    first, *others = best.values()
    near = [first, *(other for other in others if not faster(first, other))]
    counts = [f"{sum(c.latency[0].runtime == name for c in timed)} on {name}" for name in (target.runtime, *target.alternatives)]
    if len(near) == 1:
        text = f"the fastest of the front runs on {first.latency[0].runtime} ({first.id})"
    else:
        which = " or ".join(f"on {c.latency[0].runtime} ({c.id})" for c in near)
        text = f"the fastest of the front runs {which}: their times cannot be distinguished"
    return [f"{text}; of the front run {', '.join(counts)}"]


def _same_recipes(study: StudyResult) -> list[str]:
    """Return notes that compare the runtimes by recipes, the original among them, that were timed in several."""
    target = study.state.request.target
    names = (target.runtime, *target.alternatives)
    complete = [c for c in (study.baseline, *study.candidates) if c.state == "complete" and c.latency]
    first = {_without_runtime(c): c for c in complete if c.latency[0].runtime == names[0]}
    notes = []
    for name in names[1:]:
        others = [c for c in complete if c.latency[0].runtime == name]
        pairs = [(first[_without_runtime(c)], c) for c in others if _without_runtime(c) in first]
        ahead, behind = sum(faster(b, a) for a, b in pairs), sum(faster(a, b) for a, b in pairs)
        tried = f"{len(others)} candidate{'' if len(others) == 1 else 's'} ran on {name}"
        if not pairs:
            notes.append(f"{tried}, none of them with a recipe that ran on {names[0]} too")
            continue
        both = f"{len(pairs)} recipe{'' if len(pairs) == 1 else 's'} that ran on {names[0]} too"
        won = f"{ahead} {'was' if ahead == 1 else 'were'} faster on {name}, {behind} on {names[0]}"
        notes.append(f"{tried}; of {both}, {won}, and {len(pairs) - ahead - behind} cannot be distinguished")
    return notes


def _without_runtime(candidate: CandidateResult) -> str:
    """Return a key of a candidate's recipe without the step that names its runtime."""
    steps = [step for step in candidate.recipe if not step.method.startswith(PREFIX)]
    return json.dumps([[step.method, step.version, step.parameters] for step in steps], sort_keys=True)


def publish(result: RunResult, study: StudyResult, registry: Registry, run: RunDirectory) -> None:
    """Write all published files. A folder is written under another name and moved to its place when it is complete.

    Raises:
        OSError: The disk is full or read-only; the earlier files are still there.
    """
    staging = run.work / "publishing"
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "front").mkdir(parents=True)
    for candidate in study.front:
        _folder(staging / "front" / candidate.id, result, result.candidate(candidate.id), study, registry, run)
    run.replace_folder("front", staging / "front")
    if result.recommended is not None:
        _folder(staging / "recommended", result, result.candidate(result.recommended), study, registry, run)
        run.replace_folder("recommended", staging / "recommended")
    else:
        shutil.rmtree(run.path / "recommended", ignore_errors=True)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        write_atomic(run.path / "report.html", registry.render("html", result))
    except (InputError, PluginError) as error:  # the results count more than their page
        result = replace(result, notes=[*result.notes, f"no report.html: {error}"])
    write_results(result, run.path / "results.json")  # last: if it exists, everything does


def _with_phrases(candidate: CandidateResult, methods: Mapping[str, Method]) -> CandidateResult:
    """Return the candidate with each method's phrase for its step; empty if the method fails."""
    steps = []
    for step in candidate.recipe:
        phrase, method = "", methods.get(step.method)
        if method is not None:
            with suppress(Exception):  # a plugin's own code
                phrase = str(method.phrase(step.parameters)) or _default_phrase(step, method)
        steps.append(replace(step, phrase=phrase))
    return replace(candidate, recipe=steps)


def _default_phrase(step: StepResult, method: Method) -> str:
    """Return the phrase of a step whose method has none: its name and the parameters that are not at their defaults."""
    usual = {parameter.name: parameter.start for parameter in method.parameters}
    other = {name: value for name, value in step.parameters.items() if name not in usual or usual[name] != value}
    return formatting.step_words(replace(step, parameters=other))


def _layers(study: StudyResult, run: RunDirectory) -> dict[str, LayerTable]:
    """Return the layers of the candidates of the front beside the original's, for ONNX files that can be counted.

    Times are those of the target's first runtime; a candidate in another one has none.
    """
    target = study.state.request.target
    shapes = {spec.name: (1, *spec.shape) for spec in study.state.task.inputs}

    def layers(candidate: CandidateResult) -> Layers | None:
        path = candidate.artifact.path if candidate.artifact else None
        if candidate.artifact is None or path is None or not path.endswith(".onnx"):
            return None
        try:
            return Layers(run.path / path, target, shapes, candidate.artifact.runtime)
        except (InputError, OSError):
            return None

    original = layers(study.baseline)
    tables = {}
    for candidate in study.front:
        if original is not None and candidate.id != study.baseline.id and (own := layers(candidate)) is not None:
            tables[candidate.id] = layer_table(original, own, target)
    return tables


def _published(candidate: CandidateResult, front: set[str]) -> CandidateResult:
    """Return the candidate with the published path of its file."""
    if candidate.artifact is None or candidate.artifact.path is None or candidate.id not in front:
        return candidate
    name = Path(candidate.artifact.path).name
    return replace(candidate, artifact=replace(candidate.artifact, path=f"front/{candidate.id}/{name}"))


def _folder(
    folder: Path, result: RunResult, candidate: CandidateResult, study: StudyResult, registry: Registry, run: RunDirectory
) -> None:
    folder.mkdir(parents=True)
    original = study.baseline if candidate.id == study.baseline.id else next(c for c in study.front if c.id == candidate.id)
    if original.artifact is None or original.artifact.path is None:
        return
    source = run.path / original.artifact.path
    try:
        (folder / source.name).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, folder / source.name)
    state = study.state
    usage = _usage(registry, original.artifact.runtime, source.name, state.request.target.threads)
    card = render_card(result, candidate, inputs=state.task.inputs, outputs=state.task.outputs, usage=usage)
    write_atomic(folder / "card.md", card)
    text = recipe_text(candidate.id, candidate.recipe, state.request, state.task, original.artifact.digest)
    write_atomic(folder / "recipe.toml", text)
    if (table := result.layers.get(candidate.id)) is not None:
        write_atomic(folder / LAYERS, json.dumps(plain(table)) + "\n")


def _usage(registry: Registry, runtime: str, file: str, threads: int) -> str:
    """Return the runtime's usage snippet, or an empty string if the plugin fails."""
    with suppress(Exception):  # a plugin's own code
        return str(registry.runtimes()[runtime].usage(file, threads))
    return ""


def _environment(registry: Registry, devices: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    plugins = {p.name: f"{p.package} {p.version}" + (f" (unusable: {p.error})" if p.error else "") for p in registry.plugins}
    host = devices.get(HOST) or facts()
    boards = {reference: described for reference, described in devices.items() if reference != HOST}
    return {"host": host, **({"devices": boards} if boards else {}), "versions": versions(PACKAGES), "plugins": plugins}
