"""card.md: what a model file is, what is known about it and how, and how to run it."""

from collections.abc import Callable
from pathlib import PurePosixPath

from orchestrator.report import words
from orchestrator.report.figures import place
from orchestrator.report.markdown import safe, table
from orchestrator.report.table import approximate
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult, RunResult

CODE = """```python
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])

types = {{"float": "float32", "double": "float64"}}
inputs = {{}}
for entry in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]  # a dynamic axis: one example
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    inputs[entry.name] = np.zeros(shape, types.get(kind, kind))  # your data goes here

for entry, output in zip(session.get_outputs(), session.run(None, inputs)):
    print(entry.name, output.shape, output.dtype)
```"""


def render_card(run: RunResult, candidate: CandidateResult) -> str:
    """The Markdown card of one candidate, to stand beside its file."""
    title = f"# {safe(run.task.model or run.task.name)}: {safe(candidate.id)}"
    lead = (
        f"{safe(words.recipe_words(candidate.recipe, parameters=False))}, made for {safe(place(run))}"
        f" and the task {safe(run.task.name)} by orchestrator."
    )
    parts = [title, lead, "## Recipe", _recipe(candidate), "## What is known, and how", _figures(run, candidate)]
    parts += [f"- {safe(text)}" for text in _conditions(candidate)]
    parts.append(
        "Square brackets hold 95 % intervals. Differences are paired: the same examples, candidate minus baseline. "
        "Figures with ~ were computed, not measured: theirs are 90 % bands of their error."
    )
    parts += ["## Run it", _code(candidate, run.target.threads), "## Compared with", _comparison(run)]
    return "\n\n".join(parts) + "\n"


def _recipe(candidate: CandidateResult) -> str:
    steps = []
    for number, step in enumerate(candidate.recipe, 1):
        parameters = "".join(f"\n   - {safe(k)}: {safe(words.value_words(v))}" for k, v in step.parameters.items())
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
        ("file", words.size, _file_size(candidate), _file_size(base)),
        ("compressed file", words.size, candidate.compressed_bytes, base.compressed_bytes),
        ("peak memory", words.size, candidate.peak_memory_bytes, base.peak_memory_bytes),
        ("MACs of one inference", words.count, candidate.macs, base.macs),
        ("parameters", words.count, candidate.parameters, base.parameters),
    ]
    rows += [[name, show(value), "", show(old), ""] for name, show, value, old in amounts if value is not None]
    if candidate.energy_mj is not None:
        rows.append(["energy of one inference", words.energy(candidate.energy_mj), "", words.energy(base.energy_mj), ""])
    heads = ["figure", "this model", "interval", "baseline", "against the baseline"]
    return table(heads, [[safe(cell) for cell in row] for row in rows], left=1) if rows else "Nothing was measured."


def _conditions(candidate: CandidateResult) -> list[str]:
    """How the first latency was measured, where it was."""
    latency = next((entry for entry in candidate.latency if entry.evidence.startswith("measured")), None)
    if latency is None or not latency.conditions:
        return _equality(candidate)
    found = [f"Timed {', '.join(words.condition_words(latency.conditions))}; {latency.samples or 0:,} samples."]
    if latency.disturbed:
        found.append(f"Disturbed: {latency.disturbed}.")
    return found + _equality(candidate)


def _equality(candidate: CandidateResult) -> list[str]:
    """Whether the target's own kernels compute what this machine's do."""
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
        change = f"{words.difference(metric, figure.difference, figure.examples)} "
        change += words.difference_span(metric, figure.difference, figure.examples)
    return [
        f"{metric}, {split} split ({figure.examples:,} examples)",
        words.quality(metric, figure.value, figure.examples),
        words.quality_span(metric, figure),
        words.quality(metric, before.value, before.examples) if before else words.NONE,
        change,
    ]


def _counterpart(k: int, candidate: CandidateResult, base: CandidateResult) -> LatencyResult | None:
    """The baseline's figure that was taken when this one was: of the same kind and device, and as many before it."""

    def alike(entry: LatencyResult) -> bool:
        return (entry.evidence, entry.device) == (candidate.latency[k].evidence, candidate.latency[k].device)

    earlier = sum(alike(entry) for entry in candidate.latency[:k])
    return next(iter([entry for entry in base.latency if alike(entry)][earlier:]), None)


def _latency_row(latency: LatencyResult, before: LatencyResult | None) -> list[str]:
    where = "this host" if latency.evidence == "measured-on-host" else latency.device
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    ratio = latency.ratio
    remark = f"; {latency.note}" if latency.note and latency.evidence.startswith("measured") else ""
    sign = "" if latency.evidence.startswith("measured") else "~ "
    return [
        f"latency, {words.EVIDENCE[latency.evidence]}, {where} ({latency.runtime}, {threads}{remark})",
        approximate(latency),
        words.span(latency.low_ms, latency.high_ms, latency.median_ms),
        approximate(before) if before else words.NONE,
        f"{sign}{ratio.value:.2f} of its time {words.ratio_span(ratio)}" if ratio else "",
    ]


def _code(candidate: CandidateResult, threads: int) -> str:
    artifact = candidate.artifact
    path = artifact.path if artifact and artifact.path else "model.onnx"
    file = PurePosixPath(words.line(path)).name
    digest = f"\n\nSHA-256 of what made it: `{words.line(artifact.digest)}`" if artifact else ""
    if not file.endswith(".onnx"):
        runtime = words.line(artifact.runtime) if artifact else ""
        return f"`{file}` is in the format of the runtime {safe(runtime)}, which loads it as it is.{digest}"
    return f"With `{file}` in the working directory:\n\n{CODE.format(file=file, threads=threads)}{digest}"


def _comparison(run: RunResult) -> str:
    base = run.baseline.artifact
    digest = f", digest `{words.line(base.digest)}`" if base else ""
    return (
        f"The baseline is the original model {safe(run.task.model)} exported unchanged{digest}. "
        f"Task: {safe(run.task.name)}, data {safe(run.task.data)}, metric {safe(run.task.metric)} "
        f"({run.task.direction}), digest of weights and data `{words.line(run.task.digest)}`."
    )
