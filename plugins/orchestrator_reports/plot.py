"""The plot of the front: quality against latency, every candidate a link to its row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.plugin import CandidateResult, Direction, LatencyResult, QualityResult, RunResult
from orchestrator.plugin.report import (
    Role,
    approximate,
    formatting,
    objective,
    objective_evidence,
    objective_label,
    on_host,
    ordered,
    place,
    role,
)
from orchestrator_reports import svg

SHAPES: dict[Role, tuple[str, str]] = {
    # Distinguished by shape, not by colour alone; later ones are drawn on top.
    "dominated": ("circle", "rest open"),
    "over a limit": ("cross", "bad"),
    "stopped": ("square", "rest open"),
    "baseline": ("diamond", "base"),
    "front": ("circle", "front"),
    "recommended": ("star", "best"),
}
WIDE, NARROW = (960, 460), (343, 400)
CROWDED = 60
"""Number of points from which the intervals of candidates off the front are omitted."""
OUTLYING = 3.0
"""Points further below the front than this many times its height are omitted and counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One candidate in the plot; rates in per cent."""

    identifier: str
    role: Role
    x: tuple[float, float, float]
    """Low, median and high, ms."""
    y: tuple[float, float, float]
    size_bytes: int | None
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """The plot in two sizes.

    Attributes:
        left_out: Number of candidates whose values are too far off to be shown.
        legend: The occurring roles with their marks.
        drawings: SVG for a wide and for a narrow screen.
    """

    points: list[Point]
    left_out: int
    x_title: str
    y_title: str
    log: bool
    legend: Sequence[tuple[str, str]]
    drawings: list[str]


def plot_of(run: RunResult) -> Plot:
    """Return the front of a run as a plot; without points it has no drawings."""
    metric = formatting.line(run.task.metric)
    found = objective_evidence(run)
    where = "this host" if found == "measured-on-host" else place(run)
    x_title = f"latency on {formatting.line(where, 32)}, {formatting.EVIDENCE.get(found or '', 'not timed')} (ms)"
    y_title = f"{metric}, validation{' (%)' if formatting.is_rate(metric) else ''}"
    everything = [point for candidate in ordered(run) if (point := _point(run, candidate)) is not None]
    points = _in_sight(everything, run.task.direction)
    times = [point.x[1] for point in points]
    log = bool(times) and min(times) > 0 and max(times) > 4 * min(times)
    plot = Plot(
        points=points,
        left_out=len(everything) - len(points),
        x_title=x_title,
        y_title=y_title,
        log=log,
        legend=[(part, _legend(shape)) for part, shape in SHAPES.items() if any(p.role == part for p in points)][::-1],
        drawings=[],
    )
    if points:
        title = f"Quality against latency of {len(points)} candidates; each is a link to its row in the table below."
        for name, size in (("wide", WIDE), ("narrow", NARROW)):
            body = _draw(run, plot, *size, narrow=name == "narrow")
            plot.drawings.append(svg.drawing(*size, body, name=name, title=title, interactive=True))
    return plot


def _point(run: RunResult, candidate: CandidateResult) -> Point | None:
    latency = objective(run, candidate)
    if latency is None or candidate.quality is None:
        return None
    figure = candidate.quality.validation
    scale = 100 if formatting.is_rate(run.task.metric) else 1
    return Point(
        identifier=candidate.id,
        role=role(run, candidate),
        x=(latency.low_ms, latency.median_ms, latency.high_ms),
        y=(figure.low * scale, figure.value * scale, figure.high * scale),
        size_bytes=candidate.artifact.size_bytes if candidate.artifact else None,
        label=_label(run, candidate, latency, figure),
    )


def _label(run: RunResult, candidate: CandidateResult, latency: LatencyResult, figure: QualityResult) -> str:
    """Return the text of a point for the tooltip and screen readers, one fact a line."""
    metric = formatting.line(run.task.metric)
    lines = [
        f"{formatting.line(candidate.id)}: {role(run, candidate)}",
        formatting.line(formatting.sentence(candidate.recipe)),
        f"{metric} {formatting.quality(metric, figure.value, figure.examples)} {formatting.quality_span(metric, figure)}",
        f"{objective_label(run)}: {approximate(latency)} {formatting.span(latency.low_ms, latency.high_ms, latency.median_ms)}",
    ]
    host = on_host(candidate)
    if host is not None and objective_evidence(run) != "measured-on-host":
        lines.append(f"measured, this host: {approximate(host)}")
    if candidate.artifact is not None:
        lines.append(f"file {formatting.size(candidate.artifact.size_bytes)}")
    return "\n".join(lines)


def _in_sight(points: list[Point], direction: Direction) -> list[Point]:
    """Return the points without those whose quality would compress the front."""
    kept = [p.y[1] for p in points if p.role in ("front", "recommended", "baseline")]
    if not kept:
        return points
    room = OUTLYING * ((max(kept) - min(kept)) or abs(max(kept)) * 0.02)
    worst = min(direction.sign * value for value in kept)
    return [p for p in points if direction.sign * p.y[1] >= worst - room]


def _draw(run: RunResult, plot: Plot, width: int, height: int, *, narrow: bool) -> str:
    left, right, top, bottom = (44, 10, 34, 50) if narrow else (64, 18, 38, 54)
    points = plot.points
    crowded = len(points) > CROWDED
    kept = [p for p in points if p.role in ("front", "recommended", "baseline")] or points
    xs = [p.x[1] for p in points] + ([] if plot.log else [v for p in kept for v in (p.x[0], p.x[2])])
    ys = [p.y[1] for p in points] + [v for p in kept for v in (p.y[0], p.y[2])]
    if plot.log:
        xs += [v for p in kept for v in (p.x[0], p.x[2]) if v > 0]
    x = svg.around(xs, left, width - right, log=plot.log)
    y = svg.around(ys, height - bottom, top)
    title = plot.x_title.replace(" on ", "\n", 1).split("\n")[-1] if narrow else plot.x_title
    parts = [svg.axes(x, y, title, plot.y_title, x_ticks=5 if narrow else 10, y_ticks=6)]
    limit = run.target.limits.get("max_latency_ms")
    if limit is not None and x.low < limit < x.high:
        at = x.at(limit)
        parts.append(f'<path class="limit" d="M{at:.1f},{y.start:.1f}V{y.end:.1f}"/>')
        parts.append(f'<text class="limit-text" x="{at - 5:.1f}" y="{y.end + 12:.1f}" text-anchor="end">limit</text>')
    corners = _stairs(points, run.task.direction)
    parts.append(svg.stairs([(x.at(a), y.at(b)) for a, b in corners], "stairs"))
    largest = max((p.size_bytes or 0 for p in points), default=0) or 1
    order = list(SHAPES)
    for point in sorted(points, key=lambda p: order.index(p.role) if p.role in order else 0):
        shape, name = SHAPES.get(point.role, SHAPES["dominated"])
        radius = (4 if narrow else 5) + (6 if narrow else 8) * math.sqrt((point.size_bytes or 0) / largest)
        bars = "" if crowded and point not in kept else _bars(point, x, y)
        link = escape(f"#c-{point.identifier}")
        parts.append(
            f'<a href="{link}" class="point {name}" data-id="{escape(formatting.line(point.identifier))}" '
            f'aria-label="{escape(point.label)}">{bars}{svg.mark(shape, x.at(point.x[1]), y.at(point.y[1]), radius, name)}</a>'
        )
    return "".join(parts)


def _bars(point: Point, x: svg.Scale, y: svg.Scale) -> str:
    """Return the two intervals, clipped to the plot."""
    across, up = x.at(point.x[1]), y.at(point.y[1])
    ends = [max(x.start, min(x.end, x.at(value))) for value in (point.x[0], point.x[2])]
    tops = [min(y.start, max(y.end, y.at(value))) for value in (point.y[0], point.y[2])]
    return f'<path class="bar" d="M{ends[0]:.1f},{up:.1f}H{ends[1]:.1f}M{across:.1f},{tops[0]:.1f}V{tops[1]:.1f}"/>'


def _legend(shape: tuple[str, str]) -> str:
    mark = svg.mark(shape[0], 0, 0, 5.5, shape[1])
    return f'<svg class="key" viewBox="-9 -9 18 18" width="18" height="18" aria-hidden="true">{mark}</svg>'


def _stairs(points: Sequence[Point], direction: Direction) -> list[tuple[float, float]]:
    """Return the corners of the front in the two shown objectives; the third one may put further candidates on the front."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.x[1], -direction.sign * p.y[1])):
        better = not corners or direction.better(point.y[1], corners[-1][1])
        if point.role in ("front", "recommended", "baseline") and better:
            corners.append((point.x[1], point.y[1]))
    return corners
