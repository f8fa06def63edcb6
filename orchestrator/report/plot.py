"""The front as data for the page's plot: plain numbers and escaped text, drawn by report.js."""

import textwrap
from html import escape
from typing import Any

from orchestrator.report import words
from orchestrator.report.figures import (
    Role,
    objective,
    objective_evidence,
    objective_label,
    on_host,
    ordered,
    place,
    role,
)
from orchestrator.report.table import approximate
from orchestrator.values.results import CandidateResult, LatencyResult, QualityResult, RunResult


def plot_data(run: RunResult) -> dict[str, Any]:
    """What report.js draws: points, axis titles, the stairs of the front, and the limits that fall into the picture."""
    metric = words.line(run.task.metric)
    points = [point for candidate in ordered(run) if (point := _point(run, candidate)) is not None]
    times = [point["x"] for point in points]
    found = objective_evidence(run)
    where = "this host" if found == "measured-on-host" else place(run)
    evidence = words.EVIDENCE.get(found or "", "not timed")
    unit = " (%)" if words.is_rate(metric) else ""
    return {
        "points": points,
        "stairs": _stairs(points, maximize=run.task.direction == "maximize"),
        "x_title": [escape(f"latency on {words.line(where, 32)},"), escape(f"{evidence} (ms)")],
        "y_title": escape(f"{metric}, validation split{unit}"),
        "log": bool(times) and min(times) > 0 and max(times) > 10 * min(times),
        "x_limit": _limit_in_sight(run.target.limits.get("max_latency_ms"), times),
    }


def _point(run: RunResult, candidate: CandidateResult) -> dict[str, Any] | None:
    latency = objective(run, candidate)
    if latency is None or candidate.quality is None:
        return None
    figure = candidate.quality.validation
    scale = 100 if words.is_rate(run.task.metric) else 1
    return {
        "id": escape(words.line(candidate.id)),
        "role": role(run, candidate),
        "on_front": candidate.id in run.front,
        "x": latency.median_ms,
        "x_low": latency.low_ms,
        "x_high": latency.high_ms,
        "y": figure.value * scale,
        "y_low": figure.low * scale,
        "y_high": figure.high * scale,
        "size": candidate.artifact.size_bytes if candidate.artifact else None,
        "hover": _hover(run, candidate, latency, figure),
    }


def _hover(run: RunResult, candidate: CandidateResult, latency: LatencyResult, figure: QualityResult) -> str:
    """The text of the pointer's box. Plotly reads tags in it, so everything but our own is escaped."""
    metric = words.line(run.task.metric)
    steps = [words.step_words(step) for step in candidate.recipe] or ["the original"]
    value = words.quality(metric, figure.value, figure.examples)
    lines = [
        f"{metric} {value} {words.quality_span(metric, figure)}",
        f"{objective_label(run)}: {approximate(latency)} {words.span(latency.low_ms, latency.high_ms, latency.median_ms)}",
    ]
    host = on_host(candidate)
    if host is not None and objective_evidence(run) != "measured-on-host":
        lines.append(f"measured, this host: {approximate(host)}")
    if candidate.artifact is not None:
        lines.append(f"file {words.size(candidate.artifact.size_bytes)}")
    named: Role = role(run, candidate)
    title = f"<b>{escape(words.line(candidate.id))}</b> {named}"
    # Wrapped, for plotly does not: a longer line would leave a telephone's screen.
    recipe = "<br>→ ".join("<br>   ".join(map(escape, textwrap.wrap(step, 46, max_lines=4))) for step in steps)
    return "<br>".join([title, recipe, *(escape(text) for text in lines)])


def _stairs(points: list[dict[str, Any]], *, maximize: bool) -> list[list[float]]:
    """The corners of the front in the two shown objectives; a third one may put further candidates on the front."""
    corners: list[list[float]] = []
    for point in sorted(points, key=lambda p: (p["x"], -p["y"] if maximize else p["y"])):
        better = not corners or (point["y"] > corners[-1][1] if maximize else point["y"] < corners[-1][1])
        if point["on_front"] and better:
            corners.append([point["x"], point["y"]])
    return corners


def _limit_in_sight(limit: float | None, times: list[float]) -> float | None:
    """The limit, unless drawing it would squeeze the points into a corner."""
    return limit if limit is not None and times and min(times) * 0.5 <= limit <= max(times) * 1.3 else None
