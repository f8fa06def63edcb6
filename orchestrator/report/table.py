"""The table of all candidates for every format: columns and cells."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.report import formatting
from orchestrator.report.selection import estimated, objective, objective_evidence, on_host, ordered, place
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult, RunResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A value as text, its interval or remark, and its sort key (None sorts last)."""

    text: str = formatting.NONE
    note: str = ""
    order: float | str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One value of every candidate.

    Attributes:
        evidence: "measured", "estimated", "simulated", or "" if it is not a latency.
    """

    title: str
    evidence: str = ""
    cell: Callable[[CandidateResult], Cell]


def columns(run: RunResult) -> list[Column]:
    """Return the columns of this run, without those that would be empty for every candidate."""
    metric = formatting.line(run.task.metric)
    evidence = formatting.EVIDENCE.get(objective_evidence(run) or "", "")
    here = objective_evidence(run) == "measured-on-host"
    there = "this host" if here else place(run)
    listed = [
        Column(title=f"{metric}, validation", cell=lambda c: _quality(metric, _validation(c))),
        Column(title=f"{metric} minus the original's", cell=lambda c: _difference(metric, c)),
        Column(title=f"{metric}, test", cell=lambda c: _quality(metric, c.quality.test if c.quality else None)),
        Column(title=f"{metric} by the target's kernels", evidence="simulated", cell=lambda c: _there(metric, c)),
        Column(title=f"latency on {there}", evidence=evidence, cell=lambda c: _latency(objective(run, c))),
        Column(title=f"ratio to the original, {there}", evidence=evidence, cell=lambda c: _ratio(objective(run, c))),
    ]
    if evidence not in ("", "estimated"):
        title = f"latency on {place(run)}"
        listed.append(Column(title=title, evidence="estimated", cell=lambda c: _latency(estimated(c))))
    if not here:
        listed += [
            Column(title="latency on this host", evidence="measured", cell=lambda c: _latency(on_host(c))),
            Column(title="ratio to the original, this host", evidence="measured", cell=lambda c: _ratio(on_host(c))),
        ]
    listed += [
        Column(title="file", cell=lambda c: _amount(formatting.size, c.artifact.size_bytes if c.artifact else None)),
        Column(title="compressed", cell=lambda c: _amount(formatting.size, c.compressed_bytes)),
        Column(title="MACs", cell=lambda c: _amount(formatting.count, c.macs)),
        Column(title="parameters", cell=lambda c: _amount(formatting.count, c.parameters)),
        Column(title="peak memory", cell=lambda c: _amount(formatting.size, c.peak_memory_bytes)),
        Column(title="energy", evidence="measured", cell=lambda c: Cell(text=formatting.energy(c.energy_mj), order=c.energy_mj)),
        Column(title="gains", cell=_gains),
        Column(title="machine", cell=_machine),
    ]
    return [column for column in listed if any(column.cell(c).order is not None for c in ordered(run))]


def approximate(latency: LatencyResult) -> str:
    """Format the latency, with the sign of approximation unless it was measured."""
    sign = "" if latency.evidence.is_measured else "~ "
    return sign + formatting.milliseconds(latency.median_ms)


def _validation(candidate: CandidateResult) -> QualityResult | None:
    return candidate.quality.validation if candidate.quality else None


def _quality(metric: str, figure: QualityResult | None) -> Cell:
    if figure is None:
        return Cell()
    text = formatting.quality(metric, figure.value, figure.examples)
    return Cell(text=text, note=formatting.quality_span(metric, figure), order=figure.value)


def _there(metric: str, candidate: CandidateResult) -> Cell:
    """Return the quality on the simulated CPU and its number of examples, often fewer than the validation split's."""
    found = candidate.simulated_outputs
    if found is None:
        return Cell()
    cell, same = _quality(metric, found.quality), "" if found.equal else ", other outputs than here"
    return Cell(text=cell.text, note=f"{cell.note} {found.quality.examples} examples{same}", order=cell.order)


def _difference(metric: str, candidate: CandidateResult) -> Cell:
    figure = _validation(candidate)
    if figure is None or figure.difference is None:
        return Cell()
    return Cell(
        text=formatting.difference(metric, figure.difference, figure.examples),
        note=formatting.difference_span(metric, figure.difference, figure.examples),
        order=figure.difference.value,
    )


def _latency(latency: LatencyResult | None) -> Cell:
    if latency is None:
        return Cell()
    note = formatting.span(latency.low_ms, latency.high_ms, latency.median_ms)
    if latency.disturbed:
        note += " disturbed"
    return Cell(text=approximate(latency), note=note, order=latency.median_ms)


def _ratio(latency: LatencyResult | None) -> Cell:
    if latency is None or latency.ratio is None:
        return Cell()
    ratio = latency.ratio
    sign = "" if latency.evidence.is_measured else "~ "
    return Cell(text=f"{sign}{ratio.value:.2f}", note=formatting.ratio_span(ratio), order=ratio.value)


def _amount(show: Callable[[int | None], str], value: int | None) -> Cell:
    return Cell(text=show(value), order=value)


def _machine(candidate: CandidateResult) -> Cell:
    """Return who built the candidate in a shared search, and who timed it if that is another machine."""
    built, measured = candidate.machines.get("built"), candidate.machines.get("measured")
    if built is None:
        return Cell()
    return Cell(text=built, note=f"timed on {measured}" if measured not in (built, None) else "", order=built)


def _gains(candidate: CandidateResult) -> Cell:
    if candidate.gains is None:
        return Cell()
    return Cell(text="yes", order=1.0) if candidate.gains else Cell(text="no gain", order=0.0)
