"""Changes of the original's layers in a candidate, as text and as table rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from orchestrator.report import formatting
from orchestrator.values.layers import Layer, LayerChange, LayerTable

MOST_ROWS = 60
"""Largest number of listed layers: those with the largest time, or with the most multiply-accumulates."""
FORMATS = {"int8": "INT8", "float16": "float16", "bfloat16": "bfloat16", "float32": "float32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRow:
    """One layer. A pair is (before, after); after is "" if nothing changed.

    Attributes:
        bars: Lengths of the bars of the two times in per cent of the longest, or None without times.
    """

    name: str
    state: Literal["same", "changed", "gone", "new"]
    operator: str
    channels: tuple[str, str]
    precision: tuple[str, str]
    macs: tuple[str, str]
    ms: tuple[str, str]
    bars: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """A candidate's layers beside the original's.

    Attributes:
        summary: One line.
        folded: Text for the layers without a row.
        others: Time of all other operators, before and after, or None without times.
    """

    summary: str
    rows: list[LayerRow]
    folded: str
    others: tuple[str, str] | None
    timed: bool
    basis: str


def changes(table: LayerTable) -> Changes:
    """Return the table of one candidate as text."""
    weights = [_weight(change) for change in table.layers]
    kept = set(sorted(range(len(weights)), key=lambda k: -weights[k])[:MOST_ROWS])
    listed = [change for k, change in enumerate(table.layers) if k in kept]
    rest = [change for k, change in enumerate(table.layers) if k not in kept]
    times = [side.ms for change in table.layers for side in (change.before, change.after) if side and side.ms is not None]
    timed = bool(times) and table.others_before_ms is not None
    longest = max(times, default=0.0)
    others = None
    if table.others_before_ms is not None and table.others_after_ms is not None:
        others = formatting.milliseconds(table.others_before_ms), formatting.milliseconds(table.others_after_ms)
    return Changes(
        summary=_summary(table, timed=timed),
        rows=[_row(change, longest) for change in listed],
        folded=_folded(rest, timed=timed),
        others=others,
        timed=timed,
        basis=f"estimated for {formatting.line(table.device)}, {formatting.line(table.runtime)}, "
        f"{table.threads} thread{'' if table.threads == 1 else 's'}",
    )


def _weight(change: LayerChange) -> float:
    sides = [side for side in (change.before, change.after) if side is not None]
    return max((side.ms if side.ms is not None else side.macs / 1e12 for side in sides), default=0.0)


def _row(change: LayerChange, longest: float) -> LayerRow:
    before, after = change.before, change.after
    either = before or after
    if either is None:
        raise ValueError(f"layer {change.name} is on neither side")
    state: Literal["same", "changed", "gone", "new"] = "new" if before is None else "gone" if after is None else "changed"
    pairs = [_pair(before, after, show) for show in (_channels, _precision, _macs)]
    if state == "changed" and not any(pair[1] for pair in pairs):
        state = "same"
    bars = None
    if longest > 0 and either.ms is not None:
        bars = tuple(100 * ((side.ms or 0.0) if side else 0.0) / longest for side in (before, after))
    return LayerRow(
        name=formatting.line(change.name),
        state=state,
        operator=_operator(either),
        channels=pairs[0],
        precision=pairs[1],
        macs=pairs[2],
        ms=(_ms(before), _ms(after)),
        bars=(bars[0], bars[1]) if bars else None,
    )


def _pair(before: Layer | None, after: Layer | None, show: Callable[[Layer], str]) -> tuple[str, str]:
    first, second = (show(before) if before else ""), (show(after) if after else "")
    return (first, "" if second == first else second)


def _operator(layer: Layer) -> str:
    kernel = " " + "×".join(str(size) for size in layer.kernel) if layer.kernel else ""  # noqa: RUF001
    depthwise = layer.groups > 1 and layer.groups == layer.in_channels
    return f"{'depthwise ' if depthwise else ''}{formatting.line(layer.operator)}{kernel}"


def _channels(layer: Layer) -> str:
    return "" if layer.in_channels is None else f"{layer.in_channels} → {layer.out_channels}"


def _precision(layer: Layer) -> str:
    return FORMATS.get(layer.number_format, formatting.line(layer.number_format))


def _macs(layer: Layer) -> str:
    return formatting.count(layer.macs)


def _ms(layer: Layer | None) -> str:
    return "" if layer is None or layer.ms is None else formatting.number(layer.ms, 2)


def _total(table: LayerTable, *, after: bool) -> float:
    sides = [(change.after if after else change.before) for change in table.layers]
    others = (table.others_after_ms if after else table.others_before_ms) or 0.0
    return others + sum(side.ms or 0.0 for side in sides if side is not None)


def _summary(table: LayerTable, *, timed: bool) -> str:
    before = [change.before for change in table.layers if change.before is not None]
    after = [change.after for change in table.layers if change.after is not None]
    gone = sum(change.after is None for change in table.layers)
    new = sum(change.before is None for change in table.layers)
    both = [(change.before, change.after) for change in table.layers if change.before and change.after]
    narrower = sum((b.out_channels or 0) > (a.out_channels or 0) for b, a in both)
    parts = [f"{len(after)} of {len(before)} layers" if gone and not new else f"{len(after)} layers"]
    if gone and new:
        parts.append(f"{gone} of the original's {len(before)} gone, {new} new")
    if narrower:
        parts.append(f"{narrower} with fewer outputs")
    for name in dict.fromkeys(layer.number_format for layer in after):
        if name != "float32":
            parts.append(f"{sum(layer.number_format == name for layer in after)} in {FORMATS.get(name, formatting.line(name))}")
    if timed:
        now, then = (formatting.milliseconds(_total(table, after=side)) for side in (True, False))
        parts.append(f"~ {now} instead of {then}")
    return ", ".join(parts)


def _folded(rest: list[LayerChange], *, timed: bool) -> str:
    if not rest:
        return ""
    said = f"{len(rest)} smaller layers are not listed"
    if not timed:
        return said
    before, after = (sum((s.ms or 0.0) for s in sides if s) for sides in ([c.before for c in rest], [c.after for c in rest]))
    return f"{said}: {formatting.milliseconds(before)} before, {formatting.milliseconds(after)} after"
