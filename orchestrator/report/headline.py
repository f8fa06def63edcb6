"""The headline of a run: one sentence and its key values."""

from dataclasses import dataclass

from orchestrator.report import formatting
from orchestrator.report.selection import (
    objective,
    objective_evidence,
    on_host,
    per_cent,
    place,
    relative_time,
    shown_quality,
    speed,
)
from orchestrator.report.table import approximate
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult, RunResult


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyValue:
    """One value of the baseline and of the recommended candidate ("" without one), and its change."""

    title: str
    detail: str = ""
    evidence: str = ""
    before: str
    after: str = ""
    interval: str = ""
    change: str = ""


def recommended(run: RunResult) -> CandidateResult | None:
    """Return the recommended candidate, or None."""
    return None if run.recommended is None else run.candidate(run.recommended)


def headline(run: RunResult) -> str:
    """Return one sentence: the recommendation and its gain over the baseline."""
    best = recommended(run)
    if best is None:
        return "No model is recommended."
    if best.id == run.baseline.id:
        return "The original model stays the best choice."
    facts = [fact for fact in (_time_fact(run, best), _smaller(run, best)) if fact]
    gain = f"{' and '.join(facts)} than the original" if facts else _no_gain(run, best)
    shown = shown_quality(best)
    if shown is None:
        return f"The recommended model is {gain}."
    metric, figure = formatting.line(run.task.metric), shown[1]
    change = f" ({formatting.difference(metric, figure.difference, figure.examples)})" if figure.difference else ""
    value = formatting.quality(metric, figure.value, figure.examples)
    return f"The recommended model is {gain}, at {value} {metric} on the {shown[0]} split{change}."


def _no_gain(run: RunResult, best: CandidateResult) -> str:
    if relative_time(run, best) is None:
        return "no smaller than the original"
    return "no smaller than the original, and no faster beyond the uncertainty"


def key_figures(run: RunResult) -> list[KeyValue]:
    """Return the key values of the baseline and of the recommended candidate."""
    best = recommended(run)
    best = None if best is None or best.id == run.baseline.id else best
    figures = [_quality_figure(run, best), _latency_figure(run, best), _host_figure(run, best), _size_figure(run, best)]
    return [figure for figure in figures if figure is not None]


def _time_fact(run: RunResult, best: CandidateResult) -> str:
    """Return the change in time that is certain given the uncertainty of both times."""
    ratio, evidence = relative_time(run, best), objective_evidence(run)
    said = "" if ratio is None else speed(ratio)
    if not said or evidence is None:
        return ""
    where = "this host" if evidence == "measured-on-host" or run.target.profile == "host" else place(run)
    return f"{said} on {where} ({formatting.EVIDENCE[evidence]})"


def _smaller(run: RunResult, best: CandidateResult) -> str:
    if best.artifact is None or run.baseline.artifact is None or run.baseline.artifact.size_bytes <= 0:
        return ""
    share = best.artifact.size_bytes / run.baseline.artifact.size_bytes - 1
    said = per_cent(abs(share), gain=share < 0) if abs(share) >= 0.005 else ""
    return f"{said} {'smaller' if share < 0 else 'larger'}" if said else ""


def _quality_figure(run: RunResult, best: CandidateResult | None) -> KeyValue | None:
    metric = formatting.line(run.task.metric)
    base, shown = run.baseline.quality, shown_quality(best or run.baseline)
    if base is None or shown is None:
        return None
    split, figure = shown
    before: QualityResult | None = base.test if split == "test" else base.validation
    value = formatting.quality(metric, figure.value, figure.examples)
    change = ""
    if best and figure.difference:
        change = formatting.difference(metric, figure.difference, figure.examples)
        change += f" {formatting.difference_span(metric, figure.difference, figure.examples)}"
    return KeyValue(
        title=metric,
        detail=f"{split} split, {figure.examples:,} examples",
        before=formatting.quality(metric, before.value, before.examples) if before else formatting.NONE,
        after=value if best else "",
        interval=formatting.quality_span(metric, figure),
        change=change,
    )


def _times(
    title: str, before: LatencyResult | None, after: LatencyResult | None, change: str, detail: str = ""
) -> KeyValue | None:
    known = after or before
    if known is None:
        return None
    return KeyValue(
        title=title,
        detail=detail,
        evidence=formatting.EVIDENCE[known.evidence],
        before=approximate(before) if before else formatting.NONE,
        after=approximate(after) if after else "",
        interval=formatting.span(known.low_ms, known.high_ms, known.median_ms),
        change=change,
    )


def _paired(latency: LatencyResult | None) -> str:
    if latency is None or latency.ratio is None:
        return ""
    sign = "" if latency.evidence.is_measured else "~ "
    return f"{sign}{latency.ratio.value:.2f} of the original's time {formatting.ratio_span(latency.ratio)}"


def _latency_figure(run: RunResult, best: CandidateResult | None) -> KeyValue | None:
    after = objective(run, best) if best else None
    ratio = relative_time(run, best) if best else None
    change = _paired(after) or (speed(ratio) or "not told apart from the original's" if ratio else "")
    where = "this host" if objective_evidence(run) == "measured-on-host" else place(run)
    return _times(f"latency on {where}", objective(run, run.baseline), after, change)


def _host_figure(run: RunResult, best: CandidateResult | None) -> KeyValue | None:
    if objective_evidence(run) == "measured-on-host":
        return None
    after = on_host(best) if best else None
    return _times("latency on this host", on_host(run.baseline), after, _paired(after), "for comparison")


def _size_figure(run: RunResult, best: CandidateResult | None) -> KeyValue | None:
    if run.baseline.artifact is None:
        return None
    new = best.artifact if best else None
    packed = best.compressed_bytes if best else run.baseline.compressed_bytes
    return KeyValue(
        title="file",
        before=formatting.size(run.baseline.artifact.size_bytes),
        after=formatting.size(new.size_bytes) if new else "",
        change=_smaller(run, best) if best else "",
        detail="" if packed is None else f"{formatting.size(packed)} compressed",
    )
