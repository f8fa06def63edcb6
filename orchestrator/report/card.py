"""The model card, card.md: values of a model file with their evidence, and how to run it."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from orchestrator.report import formatting
from orchestrator.report.markdown_table import safe, table
from orchestrator.report.selection import objective, place, shown_quality
from orchestrator.report.table import approximate
from orchestrator.report.usage_snippets import cpp_program, python_program
from orchestrator.values.results import CandidateResult, Difference, LatencyResult, QualityResult, RunResult
from orchestrator.values.task import TensorSpec

OWN = "onnxruntime"
"""The runtime whose usage programs the card contains."""

FEW = 2000
"""With fewer examples the interval of a rate is wider than about one point to each side."""


def render_card(
    run: RunResult,
    candidate: CandidateResult,
    *,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    usage: str = "",
) -> str:
    """Return the model card of one candidate as Markdown.

    Args:
        run: The run that the candidate belongs to.
        candidate: The candidate.
        inputs: Inputs of the model, for the C++ program; without them there is none.
        outputs: Outputs of the model, for the C++ program.
        usage: The runtime plugin's usage text as Markdown, or "" for onnxruntime's.
    """
    title = f"# {safe(run.task.model or run.task.name)}: {safe(candidate.id)}"
    made_for = f"Made for {safe(place(run))} and the task {safe(run.task.name)} by orchestrator"
    lead = f"{made_for}: {safe(formatting.sentence(candidate.recipe))}."
    parts = [title, lead, "## What is known, and how", _figures(run, candidate)]
    parts += [f"- {safe(text)}" for text in _conditions(candidate)]
    parts.append(
        "Square brackets hold 95 % intervals. Differences are paired: the same examples, candidate minus baseline. "
        "Figures with ~ were computed, not measured: theirs are 90 % bands of their error."
    )
    parts += ["## Limits", _limits(run, candidate)]
    parts += ["## Known weaknesses", "\n".join(f"- {safe(text)}" for text in weaknesses(run, candidate))]
    parts += ["## Run it", _code(candidate, run.target.threads, inputs, outputs, usage)]
    parts += ["## Recipe", _recipe(candidate), "## Data, metric and what it is compared with", _comparison(run)]
    return "\n\n".join(parts) + "\n"


def weaknesses(run: RunResult, candidate: CandidateResult) -> list[str]:
    """Return the known weaknesses of a candidate, derived from its values."""
    return [*_doubts_of_quality(run, candidate), *_doubts_of_cost(run, candidate)]


def _doubts_of_quality(run: RunResult, candidate: CandidateResult) -> list[str]:
    found, metric = [], formatting.line(run.task.metric)
    shown = shown_quality(candidate)
    if shown is None:
        return ["Its quality was not measured."]
    split, figure = shown
    worse = run.task.direction.sign
    gap = figure.difference
    if gap is not None and max(worse * gap.low, worse * gap.high) < 0:
        found.append(
            f"Its {metric} is worse than the original's beyond chance: {formatting.difference(metric, gap, figure.examples)} "
            f"{formatting.difference_span(metric, gap, figure.examples)} on the {split} split."
        )
    if split == "validation":
        found.append(
            f"Its {metric} is known on the validation split alone, which also chose it among {len(run.candidates)} candidates: "
            f"expect somewhat less on new data."
        )
    if figure.examples < FEW:
        found.append(f"The {split} split has {figure.examples:,} examples: see how wide the interval is.")
    found.append("How it does on data unlike the task's (other cameras, languages, rare classes) was not looked at.")
    there = candidate.simulated_outputs
    if there is not None and not there.equal:
        found.append(f"The target's own kernels gave other outputs than this machine's on a simulated {there.device}.")
    return found


def _doubts_of_cost(run: RunResult, candidate: CandidateResult) -> list[str]:
    found = []
    latency = objective(run, candidate)
    if latency is None:
        found.append("It was not timed.")
    elif not latency.evidence.is_measured:
        found.append(
            f"Its latency on {place(run)} was {formatting.EVIDENCE[latency.evidence]}, never measured there: "
            f"{approximate(latency)} may be anything in {formatting.span(latency.low_ms, latency.high_ms, latency.median_ms)} ms."
        )
    elif latency.disturbed:
        found.append(f"Its latency was taken on a disturbed machine: {latency.disturbed}.")
    if candidate.peak_memory_bytes is not None and run.target.device == "host" and run.target.profile != "host":
        found.append(f"Its peak memory was taken on this host, not on {place(run)}.")
    if candidate.gains is False:
        found.append("Neither its file nor its time is better than the original's.")
    return found


def _limits(run: RunResult, candidate: CandidateResult) -> str:
    """Return each limit with the candidate's value and whether it is satisfied."""
    rows = []
    for name, limit in run.target.limits.items():
        value = _limited(name, run, candidate)
        if limit is None:
            continue
        if value is None:
            shown, verdict = formatting.NONE, "not known"
        else:
            shown, kept = _against(name, value, limit, run)
            verdict = "kept" if kept else "broken"
        rows.append([safe(cell) for cell in (formatting.limit_words(name, limit, run.task.metric), shown, verdict)])
    return table(["limit", "this model", "verdict"], rows, left=1) if rows else "None was given."


def _limited(name: str, run: RunResult, candidate: CandidateResult) -> float | None:
    """Return the value that a limit applies to."""
    latency = objective(run, candidate)
    quality = candidate.quality.validation.value if candidate.quality else None
    base = run.baseline.quality.validation.value if run.baseline.quality else None
    known: dict[str, float | None] = {
        "max_latency_ms": latency.median_ms if latency else None,
        "max_size_bytes": _file_size(candidate),
        "max_memory_bytes": candidate.peak_memory_bytes,
        "max_drop": None if quality is None or base is None else run.task.direction.gain(base, quality),
        "min_quality": quality,
    }
    return known.get(name)


def _against(name: str, value: float, limit: float, run: RunResult) -> tuple[str, bool]:
    """Return the value as text and whether it satisfies the limit."""
    metric, tiny = run.task.metric, 1e-12
    if name == "max_latency_ms":
        return formatting.milliseconds(value), value <= limit
    if name.endswith("_bytes"):
        return formatting.size(int(value)), value <= limit
    if name == "max_drop":
        lost = formatting.difference(
            metric, Difference(value=-value, low=-value, high=-value), run.task.examples.get("validation", 0)
        )
        return lost, value <= limit + tiny
    better = run.task.direction.gain(value, limit) >= -tiny
    return formatting.quality(metric, value), better


def _recipe(candidate: CandidateResult) -> str:
    steps = []
    for number, step in enumerate(candidate.recipe, 1):
        parameters = "".join(f"\n   - {safe(k)}: {safe(formatting.value_words(v))}" for k, v in step.parameters.items())
        steps.append(f"{number}. {safe(step.method)} (version {step.version}){parameters}")
    return "\n".join(steps) or "No step: this is the original model, exported."


def _figures(run: RunResult, candidate: CandidateResult) -> str:
    base = run.baseline
    rows: list[list[str]] = []
    if candidate.quality is not None:
        for split, figure, before in (
            ("validation", candidate.quality.validation, base.quality.validation if base.quality else None),
            ("test", candidate.quality.test, base.quality.test if base.quality else None),
        ):
            if figure is not None:
                rows.append(_quality_row(run.task.metric, split, figure, before))
    there = candidate.simulated_outputs
    if there is not None:
        before = base.simulated_outputs.quality if base.simulated_outputs else None
        rows.append(
            _quality_row(run.task.metric, f"validation, by the kernels of a simulated {there.device}", there.quality, before)
        )
    for k, latency in enumerate(candidate.latency):
        rows.append(_latency_row(latency, _counterpart(k, candidate, base)))
    amounts: list[tuple[str, Callable[[int | None], str], int | None, int | None]] = [
        ("file", formatting.size, _file_size(candidate), _file_size(base)),
        ("compressed file", formatting.size, candidate.compressed_bytes, base.compressed_bytes),
        ("peak memory", formatting.size, candidate.peak_memory_bytes, base.peak_memory_bytes),
        ("MACs of one inference", formatting.count, candidate.macs, base.macs),
        ("parameters", formatting.count, candidate.parameters, base.parameters),
    ]
    rows += [[name, show(value), "", show(old), ""] for name, show, value, old in amounts if value is not None]
    if candidate.energy_mj is not None:
        rows.append(
            ["energy of one inference", formatting.energy(candidate.energy_mj), "", formatting.energy(base.energy_mj), ""]
        )
    heads = ["value", "this model", "interval", "baseline", "against the baseline"]
    return table(heads, [[safe(cell) for cell in row] for row in rows], left=1) if rows else "Nothing was measured."


def _conditions(candidate: CandidateResult) -> list[str]:
    """Return the conditions of the first latency measurement, if there is one."""
    latency = next((entry for entry in candidate.latency if entry.evidence.is_measured), None)
    if latency is None or not latency.conditions:
        return _equality(candidate)
    found = [f"Timed {', '.join(formatting.condition_words(latency.conditions))}; {latency.samples or 0:,} samples."]
    if latency.disturbed:
        found.append(f"Disturbed: {latency.disturbed}.")
    return found + _equality(candidate)


def _equality(candidate: CandidateResult) -> list[str]:
    """Return how the outputs of the target's kernels compare with this machine's."""
    there = candidate.simulated_outputs
    if there is None:
        return []
    said = "the same outputs as here" if there.equal else "other outputs than here"
    return [
        f"On a simulated {there.device} {there.runtime} gives {said}: they differ by at most {there.largest_difference:.2g} of "
        f"the output's range on {there.quality.examples:,} examples (equal is up to {there.tolerance:g})."
    ]


def _file_size(candidate: CandidateResult) -> int | None:
    return candidate.artifact.size_bytes if candidate.artifact else None


def _quality_row(metric: str, split: str, figure: QualityResult, before: QualityResult | None) -> list[str]:
    change = ""
    if figure.difference is not None:
        change = f"{formatting.difference(metric, figure.difference, figure.examples)} "
        change += formatting.difference_span(metric, figure.difference, figure.examples)
    return [
        f"{metric}, {split} split ({figure.examples:,} examples)",
        formatting.quality(metric, figure.value, figure.examples),
        formatting.quality_span(metric, figure),
        formatting.quality(metric, before.value, before.examples) if before else formatting.NONE,
        change,
    ]


def _counterpart(k: int, candidate: CandidateResult, base: CandidateResult) -> LatencyResult | None:
    """Return the baseline's latency of the same evidence and device, at the same position among those."""

    def alike(entry: LatencyResult) -> bool:
        return (entry.evidence, entry.device) == (candidate.latency[k].evidence, candidate.latency[k].device)

    earlier = sum(alike(entry) for entry in candidate.latency[:k])
    return next(iter([entry for entry in base.latency if alike(entry)][earlier:]), None)


def _latency_row(latency: LatencyResult, before: LatencyResult | None) -> list[str]:
    where = "this host" if latency.evidence == "measured-on-host" else latency.device
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    ratio = latency.ratio
    remark = f"; {latency.note}" if latency.note and latency.evidence.is_measured else ""
    sign = "" if latency.evidence.is_measured else "~ "
    return [
        f"latency, {formatting.EVIDENCE[latency.evidence]}, {where} ({latency.runtime}, {threads}{remark})",
        approximate(latency),
        formatting.span(latency.low_ms, latency.high_ms, latency.median_ms),
        approximate(before) if before else formatting.NONE,
        f"{sign}{ratio.value:.2f} of its time {formatting.ratio_span(ratio)}" if ratio else "",
    ]


def _code(
    candidate: CandidateResult, threads: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], usage: str
) -> str:
    artifact = candidate.artifact
    path = artifact.path if artifact and artifact.path else "model.onnx"
    file = PurePosixPath(formatting.line(path)).name
    runtime = formatting.line(artifact.runtime) if artifact else OWN
    parts = []
    if usage:
        parts.append(formatting.clean(usage).strip())
    elif not file.endswith(".onnx"):
        parts.append(f"`{file}` is in the format of the runtime {safe(runtime)}, which loads it as it is.")
    else:
        if runtime != OWN:
            said = f"It was scored and timed in {safe(runtime)}, whose plugin does not say how to run it"
            parts.append(f"{said}. In {OWN} its values may differ.")
        parts.append(f"With `{file}` in the working directory:\n\n```python\n{python_program(file, threads)}```")
        if (program := cpp_program(file, threads, inputs, outputs)) is not None:
            parts.append(f"The same in C++17, with onnxruntime's headers and library (`-lonnxruntime`):\n\n```cpp\n{program}```")
    if artifact:
        parts.append(f"SHA-256 of `{file}`: `{formatting.line(artifact.digest)}`")
    return "\n\n".join(parts)


def _comparison(run: RunResult) -> str:
    base = run.baseline.artifact
    digest = f", digest `{formatting.line(base.digest)}`" if base else ""
    return (
        f"The baseline is the original model {safe(run.task.model)} exported unchanged{digest}. "
        f"Task: {safe(run.task.name)}, data {safe(run.task.data)}, metric {safe(run.task.metric)} "
        f"({run.task.direction}), digest of weights and data `{formatting.line(run.task.digest)}`."
    )
