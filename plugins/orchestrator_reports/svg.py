"""Charts as SVG text: scales with round ticks, axes, marks. Colours are CSS classes, for light, dark and print.

No script and no plotting library is needed to show them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

MARKS = {
    "circle": "M{r},0A{r},{r} 0 1 1 -{r},0A{r},{r} 0 1 1 {r},0Z",
    "diamond": "M0,-{b}L{b},0L0,{b}L-{b},0Z",
    "square": "M-{s},-{s}H{s}V{s}H-{s}Z",
    "cross": "M-{s},-{s}L{s},{s}M{s},-{s}L-{s},{s}",
    "star": "",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """A linear or logarithmic scale from values to positions.

    Attributes:
        low: Value at the start; positive if logarithmic.
        high: Value at the end.
        start: Position of the low end, in units of the drawing.
        end: Position of the high end.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value; values beyond an end are mapped beyond it."""
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(max(value, 1e-300))) if self.log else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return round values between the ends, about `most` of them at most."""
        if self.log and self.high / self.low > 3:
            return _log_ticks(self.low, self.high, most)
        step = 10 ** math.floor(math.log10((self.high - self.low) / most))
        step *= next((k for k in (1, 2, 5) if (self.high - self.low) / (k * step) <= most), 10)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 12) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [s * 10.0**k for k in decades for s in steps if low * (1 - 1e-9) <= s * 10.0**k <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def around(values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.06) -> Scale:
    """Return a scale that contains all values with a margin; equal values are centred."""
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1)
    if log:
        factor = (high / low) ** margin
        return Scale(low=low / factor, high=high * factor, start=start, end=end, log=True)
    return Scale(low=low - (high - low) * margin, high=high + (high - low) * margin, start=start, end=end)


def label(value: float, like: Sequence[float]) -> str:
    """Return a tick's text with as many decimals as distinguish these ticks."""
    smallest = min((abs(b - a) for a, b in pairwise(like)), default=abs(value) or 1.0)
    finest = min([smallest, *(abs(v) for v in like if v)]) if len(like) > 1 else smallest
    places = max(0, -math.floor(math.log10(finest) + 1e-9)) if finest > 0 else 0
    text = f"{value:,.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def axes(x: Scale, y: Scale, x_title: str, y_title: str, *, x_ticks: int, y_ticks: int) -> str:
    """Return the grid, ticks and titles; the y axis runs from its start (bottom) to its end (top)."""
    parts = []
    across, up = x.ticks(x_ticks), y.ticks(y_ticks)
    for value in up:
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{x.start:.1f},{at:.1f}H{x.end:.1f}"/>')
        parts.append(f'<text class="tick" x="{x.start - 8:.1f}" y="{at + 4:.1f}" text-anchor="end">{label(value, up)}</text>')
    for value in across:
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f},{y.start:.1f}V{y.end:.1f}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{y.start + 18:.1f}" text-anchor="middle">{label(value, across)}</text>')
    parts.append(f'<path class="axis" d="M{x.start:.1f},{y.end:.1f}V{y.start:.1f}H{x.end:.1f}"/>')
    middle, left = (x.start + x.end) / 2, max(4.0, x.start - 44)
    parts.append(f'<text class="title" x="{middle:.1f}" y="{y.start + 40:.1f}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="{left:.1f}" y="{y.end - 14:.1f}">{escape(y_title)}</text>')
    return "".join(parts)


def mark(shape: str, x: float, y: float, radius: float, name: str) -> str:
    """Return a mark of one shape with about the area of a circle of that radius."""
    if shape == "star":
        points = [
            (1.5 * radius * (1 if k % 2 == 0 else 0.45)) * complex(math.sin(k * math.pi / 5), -math.cos(k * math.pi / 5))
            for k in range(10)
        ]
        path = "M" + "L".join(f"{p.real:.1f},{p.imag:.1f}" for p in points) + "Z"
    else:
        path = MARKS[shape].format(r=f"{radius:.1f}", b=f"{radius * 1.25:.1f}", s=f"{radius * 0.89:.1f}")
    return f'<path class="mark {name}" d="{path}" transform="translate({x:.1f},{y:.1f})"/>'


def stairs(points: Sequence[tuple[float, float]], name: str) -> str:
    """Return a line that is level up to each point and then steps to it."""
    if not points:
        return ""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
    return f'<path class="{name}" d="{path}"/>'


def drawing(width: int, height: int, body: str, *, name: str, title: str, interactive: bool = False) -> str:
    """Return the complete SVG: an image with a title or, if its marks are links, a group of them."""
    role = "group" if interactive else "img"
    return (
        f'<svg class="chart {name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="{role}" '
        f'aria-label="{escape(title)}">{body}</svg>'
    )
