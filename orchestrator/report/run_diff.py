"""Differences between two runs: options, versions, plugins, target, values of the originals, fronts, hypervolume, budget."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.report import formatting
from orchestrator.report.headline import recommended
from orchestrator.report.hypervolume import Box, box_of, objectives, reference_words, why_no_box
from orchestrator.report.selection import objective, objective_evidence
from orchestrator.values.evidence import Evidence
from orchestrator.values.results import CandidateResult, RunResult


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedValue:
    """A setting or value that differs between the runs; None if a run does not have it."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontSummary:
    """The values of a recipe in one run; None if unknown.

    Attributes:
        quality: Value of `metric` on the validation split.
        median_ms: Latency of `evidence`, as in that run's report.
    """

    metric: str
    quality: float | None
    evidence: Evidence | None
    median_ms: float | None
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontMember:
    """A recipe on one of the fronts; a side is None if that run does not have it, or has no values of it.

    Attributes:
        on: The fronts that contain it.
        identifier: The candidate's id, which is the same for the same recipe.
    """

    identifier: str
    recipe: str
    on: Literal["a", "b", "both"]
    a: FrontSummary | None
    b: FrontSummary | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypervolumes:
    """The share of a common box that each run's candidates within the limits dominate, 0 to 1, or None with the reason.

    Attributes:
        basis: Basis of measured times; "" if times were computed.
    """

    a: float | None = None
    b: float | None = None
    reference: str = ""
    basis: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunComparison:
    """Two runs side by side.

    Attributes:
        names: Names of the runs.
        notes: Reasons why values cannot be compared, and other remarks.
        metrics: Metrics of A and of B.
        evidence: Evidence of every latency of A and of B, or None if nothing was timed.
        same: Parts that both runs record and that are equal: "task", "target", "options", "versions", "plugins".
        silent: Which of "A" and "B" did not record all options.
        best: Ids of the recommended candidates of A and of B, or None.
    """

    names: tuple[str, str]
    metrics: tuple[str, str]
    evidence: tuple[Evidence | None, Evidence | None]
    same: list[str]
    silent: list[str]
    best: tuple[str | None, str | None]
    task: list[ChangedValue]
    target: list[ChangedValue]
    options: list[ChangedValue]
    versions: list[ChangedValue]
    plugins: list[ChangedValue]
    host: list[ChangedValue]
    baseline: list[ChangedValue]
    recommended: list[ChangedValue]
    budget: list[ChangedValue]
    front: list[FrontMember]
    hypervolume: Hypervolumes
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """Return JSON-ready data; settings as `{name: {"a": ..., "b": ...}}`, only those that differ."""
        found = asdict(self)
        for key, value in found.items():
            if value and isinstance(value, list) and isinstance(value[0], dict) and value[0].keys() == {"what", "a", "b"}:
                found[key] = {entry["what"]: {"a": entry["a"], "b": entry["b"]} for entry in value}
            elif key in ("task", "target", "options", "versions", "plugins", "host", "baseline", "recommended", "budget"):
                found[key] = {}
        return found


OPTIONS = (
    *("name", "sampler", "seed", "trials", "timeout_s", "epochs"),
    *("methods", "offered", "without", "runtimes", "training", "early_stopping", "useful_drop", "candidate_timeout_s"),
    *("loss", "student", "warm_start", "warm_share", "input_shapes"),
)
"""Options that affect the result, by their names in results.json; older runs do not record all of them."""


def compared(a: RunResult, b: RunResult, names: tuple[str, str]) -> RunComparison:
    """Return the differences between two runs. `notes` state whether their values are comparable."""
    fronts = (set(a.front), set(b.front))
    members = [*a.front, *(name for name in b.front if name not in fronts[0])]
    told = [key for key in OPTIONS if key in a.search and key in b.search]
    silent = [name for name, run in (("A", a), ("B", b)) if any(key not in run.search for key in OPTIONS)]
    parts = {
        "task": (_task(a), _task(b)),
        "target": (_target(a), _target(b)),
        "options": ({key: a.search[key] for key in told}, {key: b.search[key] for key in told}),
        "versions": (a.environment.get("versions", {}), b.environment.get("versions", {})),
        "plugins": (a.environment.get("plugins", {}), b.environment.get("plugins", {})),
    }
    changed = {part: _differences(*sides) for part, sides in parts.items()}
    return RunComparison(
        names=names,
        metrics=(a.task.metric, b.task.metric),
        evidence=(objective_evidence(a), objective_evidence(b)),
        same=[part for part, sides in parts.items() if all(sides) and not changed[part]],
        silent=silent,
        best=(a.recommended, b.recommended),
        **changed,
        host=_differences(*(_host(run) for run in (a, b))),
        baseline=_differences(_figures(a, a.baseline), _figures(b, b.baseline)),
        recommended=_differences(_recommended(a), _recommended(b)),
        budget=_differences(_budget(a), _budget(b), everything=True),
        front=[_member(name, a, b, fronts) for name in members],
        hypervolume=_hypervolumes(a, b),
        notes=_notes(a, b) + _unknown(silent, told, parts),
    )


def _unknown(silent: list[str], told: list[str], parts: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return notes on parts that could not be compared because a run does not record them."""
    notes = []
    if silent:
        listed = ", ".join(key.removesuffix("_s").replace("_", " ") for key in told)
        known = f"beyond {listed} " if told else ""
        notes.append(f"Options {known}were not compared: {' and '.join(silent)} did not record all of them.")
    missing = [part for part in ("versions", "plugins") if not all(parts[part])]
    if missing:
        notes.append(f"The {' and '.join(missing)} were not compared: they are not recorded in both runs.")
    return notes


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], *, everything: bool = False) -> list[ChangedValue]:
    names = [*a, *(name for name in b if name not in a)]
    return [ChangedValue(what=n, a=a.get(n), b=b.get(n)) for n in names if everything or a.get(n) != b.get(n)]


def _task(run: RunResult) -> dict[str, Any]:
    task = run.task
    examples = {f"{split} examples": number for split, number in task.examples.items()}
    return {"name": task.name, "model": task.model, "data": task.data, "metric": task.metric, "digest": task.digest, **examples}


def _target(run: RunResult) -> dict[str, Any]:
    target = run.target
    found: dict[str, Any] = {"profile": target.profile, "device": target.device, "runtime": target.runtime}
    found |= {"threads": target.threads, "evidence": objective_evidence(run)}
    return found | dict(target.limits)


def _host(run: RunResult) -> dict[str, Any]:
    """Return the identity of the machine without its momentary load."""
    host = run.environment.get("host", {})
    return {k: v for k, v in host.items() if k != "load"} if isinstance(host, Mapping) else {}


def _figures(run: RunResult, candidate: CandidateResult) -> dict[str, Any]:
    """Return validation and test quality, objective latency and sizes, by their names in results.json."""
    found: dict[str, Any] = {}
    if candidate.quality is not None:
        found["quality_validation"] = candidate.quality.validation.value
        if candidate.quality.test is not None:
            found["quality_test"] = candidate.quality.test.value
    if (latency := objective(run, candidate)) is not None:
        found["median_ms"] = latency.median_ms
    if candidate.artifact is not None:
        found["size_bytes"] = candidate.artifact.size_bytes
    return found | {"macs": candidate.macs, "parameters": candidate.parameters}


def _recommended(run: RunResult) -> dict[str, Any]:
    best = recommended(run)
    if best is None:
        return {"id": None, "reason": run.reason}
    return {"id": best.id, "recipe": formatting.sentence(best.recipe), **_figures(run, best), "reason": run.reason}


def _budget(run: RunResult) -> dict[str, Any]:
    states = [candidate.state for candidate in run.candidates]
    counts = {state: states.count(state) for state in ("complete", "stopped", "rejected", "failed")}
    seconds = {f"{phase}_s": value for phase, value in run.seconds.items()}
    return {"candidates": len(states), **counts, **seconds, "ended": run.search.get("ended")}


def _candidate(run: RunResult, identifier: str) -> CandidateResult | None:
    return next((c for c in (run.baseline, *run.candidates) if c.id == identifier), None)


def _member(name: str, a: RunResult, b: RunResult, fronts: tuple[set[str], set[str]]) -> FrontMember:
    on: Literal["a", "b", "both"] = "both" if name in fronts[0] & fronts[1] else "a" if name in fronts[0] else "b"
    found = [_candidate(run, name) for run in (a, b)]
    told = next(candidate for candidate in found if candidate is not None)
    return FrontMember(
        identifier=name,
        recipe=formatting.sentence(told.recipe),
        on=on,
        a=_front_figures(a, found[0]),
        b=_front_figures(b, found[1]),
    )


def _front_figures(run: RunResult, candidate: CandidateResult | None) -> FrontSummary | None:
    if candidate is None or candidate.state != "complete":
        return None
    latency = objective(run, candidate)
    return FrontSummary(
        metric=run.task.metric,
        quality=None if candidate.quality is None else candidate.quality.validation.value,
        evidence=None if latency is None else latency.evidence,
        median_ms=None if latency is None else latency.median_ms,
        size_bytes=None if candidate.artifact is None else candidate.artifact.size_bytes,
    )


def _machine_of(run: RunResult) -> tuple[Any, ...]:
    """Return the properties that objective latencies of two runs must share to be comparable."""
    latency = run.baseline.latency[0] if run.baseline.latency else None
    if latency is None:
        return (None,)
    measured = latency.evidence.is_measured and latency.device == "host"
    return (latency.evidence, latency.device, latency.runtime, latency.threads, *([str(_host(run))] if measured else []))


def _limits(run: RunResult) -> dict[str, float]:
    return {name: value for name, value in run.target.limits.items() if value is not None}


def _hypervolumes(a: RunResult, b: RunResult) -> Hypervolumes:
    """Return both hypervolumes if task, metric, evidence, device, runtime, threads and limits are the same."""
    reasons = []
    if a.task.digest != b.task.digest or a.task.metric != b.task.metric or a.task.direction != b.task.direction:
        reasons.append("the runs are of other models, data or metrics")
    if _machine_of(a) != _machine_of(b):
        reasons.append("their latencies are of another kind of evidence, device, runtime or number of threads")
    if _limits(a) != _limits(b):
        reasons.append("the limits differ, and each run counts the candidates that keep its own")
    box = None if reasons else box_of([a, b])
    if box is None:
        return Hypervolumes(reason="; ".join(reasons) or why_no_box([a, b]))
    basis = "Measured times count by their ratio to the original of their own run" if box.unit_ms is not None else ""
    return Hypervolumes(a=_volume(a, box), b=_volume(b, box), reference=reference_words(box, a.task.metric), basis=basis)


def _volume(run: RunResult, box: Box) -> float:
    points = [objectives(run, c, box.unit_ms) for c in (run.baseline, *run.candidates) if c.feasible is not False]
    return box.volume(point for point in points if point is not None)


def _notes(a: RunResult, b: RunResult) -> list[str]:
    notes = []
    if a.task.digest != b.task.digest:
        notes.append("The model or the data are not the same: the values are of two different tasks.")
    if a.task.metric != b.task.metric:
        notes.append(f"The metrics differ ({formatting.line(a.task.metric)}, {formatting.line(b.task.metric)}).")
    kinds = [objective_evidence(run) for run in (a, b)]
    if kinds[0] != kinds[1]:
        notes.append(f"The latencies are of different evidence ({kinds[0]}, {kinds[1]}): they are not compared.")
    elif _machine_of(a) != _machine_of(b):
        notes.append("The latencies were taken on different devices or hosts, or with another runtime or number of threads.")
    return notes
