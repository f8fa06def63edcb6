"""A comparison of two runs: content of a page, and text for the terminal."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.report import formatting
from orchestrator.report.run_diff import ChangedValue, FrontMember, RunComparison
from orchestrator.report.terminal import ASCII
from orchestrator.values.evidence import Evidence

if TYPE_CHECKING:
    from rich.console import Console

SECTIONS = (
    ("task", "Task"),
    ("target", "Target and limits"),
    ("options", "Options of the search"),
    ("baseline", "The original"),
    ("recommended", "Recommended"),
    ("versions", "Versions"),
    ("plugins", "Plugins"),
    ("host", "Host"),
    ("budget", "Budget and what came of it"),
)
ON = {"a": "A", "b": "B", "both": "A and B"}


def comparison_content(found: RunComparison) -> dict[str, Any]:
    """Return what a page of a comparison shows: title, columns, the members of the fronts, and the sections of differences."""
    return {
        "title": headline(found),
        "found": found,
        "heads": _heads(found),
        "members": [_row(member) for member in found.front],
        "sections": [(title, [_shown(row, found) for row in getattr(found, name)]) for name, title in SECTIONS],
    }


def print_comparison(found: RunComparison, console: "Console") -> None:
    """Print the comparison on a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        plain = formatting.clean(content)
        return Text(plain if console.encoding.startswith("utf") else plain.translate(ASCII), style=style)

    console.print(text(headline(found), "bold"))
    for name, run in zip("AB", found.names, strict=True):
        console.print(text(f"{name}: {run}", "dim"), soft_wrap=True)
    for note in found.notes:
        console.print(text(note, "yellow"))
    console.print(text(_volumes(found)))
    for title, rows in _tables(found):
        table = Table(box=box.SIMPLE_HEAD, title=text(title, "bold"), title_justify="left", pad_edge=False)
        for k, column in enumerate(("", "A", "B") if rows and len(rows[0]) == 3 else _front_heads(found)):
            # Values are never wrapped; the recipes get the remaining width.
            table.add_column(text(column), overflow="fold", no_wrap=len(rows[0]) > 3 and k > 0)
        for row in rows:
            table.add_row(*map(text, row))
        console.print(table)


def headline(found: RunComparison) -> str:
    """Return one sentence on the recommendation and the fronts."""
    parts = [title.lower() for name, title in SECTIONS if name not in ("budget", "recommended") and getattr(found, name)]
    only = {side: sum(member.on == side for member in found.front) for side in ("a", "b", "both")}
    shared = f"{only['both']} recipe{'' if only['both'] == 1 else 's'}"
    front = f"the fronts share {shared}, {only['a']} only in A, {only['b']} only in B"
    if not found.front:
        front = "neither run has a front"
    other = f"; different: {', '.join(parts)}" if parts else f"; {_same(found)}" if found.same else ""
    return f"{front[0].upper()}{front[1:]}; {_best(found)}{other}."


def _best(found: RunComparison) -> str:
    sides = found.best
    if sides == (None, None):
        return "neither recommends a model"
    if None in sides:
        return f"only {'B' if sides[0] is None else 'A'} recommends a model"
    return "the same recipe is recommended" if sides[0] == sides[1] else "the recommended recipe changed"


def _same(found: RunComparison) -> str:
    """Return which parts were compared and are equal."""
    known = ["the recorded options" if part == "options" and found.silent else part for part in found.same]
    listed = f"{', '.join(known[:-1])} and {known[-1]}" if len(known) > 1 else known[0]
    return f"{listed} {'is' if known in (['task'], ['target']) else 'are'} the same"


def _volumes(found: RunComparison) -> str:
    volume = found.hypervolume
    if volume.a is None or volume.b is None:
        return f"Hypervolume: not compared, {volume.reason}."
    basis = f" {volume.basis}." if volume.basis else ""
    return f"Hypervolume: A {volume.a:.3f}, B {volume.b:.3f} (reference point {volume.reference}).{basis}"


def _tables(found: RunComparison) -> Iterator[tuple[str, list[list[str]]]]:
    for name, title in SECTIONS:
        rows = [_shown(row, found) for row in getattr(found, name)]
        if rows:
            yield title, [[row["what"], row["a"], row["b"]] for row in rows]
    members = []
    for member in found.front:
        row = _row(member)
        cells = [text for text, _ in row["cells"]]
        pairs = [f"{cells[k]}\n{cells[k + 1]}" for k in (0, 2, 4)]
        members.append([f"{row['id']}\n{row['recipe']}", row["on"], *pairs])
    if members:
        yield "Fronts, the values of A above those of B", members


def _kind(evidence: Evidence | None) -> str:
    """Return the report's label of an evidence."""
    return formatting.EVIDENCE[evidence] if evidence is not None else ""


def _heads(found: RunComparison) -> list[tuple[str, str]]:
    """Return the columns of the fronts' table: title, and the evidence where it matters."""
    heads = [("candidate", ""), ("recipe", ""), ("on the front of", "")]
    heads += [(f"{formatting.line(metric)}, {side}", "") for side, metric in zip("AB", found.metrics, strict=True)]
    for side, evidence in zip("AB", found.evidence, strict=True):
        where = " on the host" if evidence == "measured-on-host" else ""
        heads.append((f"latency{where}, {side}", _kind(evidence)))
    return [*heads, ("file, A", ""), ("file, B", "")]


def _front_heads(found: RunComparison) -> list[str]:
    """Return the columns for a terminal, where A and B share a column."""
    metrics = "\n".join(dict.fromkeys(formatting.line(metric) for metric in found.metrics))
    kinds = []
    for side, evidence in zip("AB", found.evidence, strict=True):
        where = ", host" if evidence == "measured-on-host" else ""
        kinds.append(f"{side} {_kind(evidence) or 'not timed'}{where}")
    return ["front", "on", metrics, "\n".join(["latency", *kinds]), "file"]


def _row(member: FrontMember) -> dict[str, Any]:
    cells: list[tuple[str, float | None]] = []
    for key in ("quality", "median_ms", "size_bytes"):
        for side in (member.a, member.b):
            value = None if side is None else getattr(side, key)
            text = formatting.NONE if side is None else _figure(key, value, side.metric)
            if key == "median_ms" and side is not None and side.evidence is not None:
                text = _sign(side.evidence) + text
            cells.append((text, value))
    return {
        "id": formatting.line(member.identifier),
        "recipe": formatting.line(member.recipe),
        "on": ON[member.on],
        "cells": cells,
    }


def _sign(evidence: Evidence) -> str:
    return "" if evidence.is_measured else "~ "


def _shown(row: ChangedValue, found: RunComparison) -> dict[str, str]:
    sides = []
    for value, metric, evidence in zip((row.a, row.b), found.metrics, found.evidence, strict=True):
        text = _figure(row.what, value, metric)
        if row.what == "median_ms" and value is not None and evidence is not None:
            text = f"{_sign(evidence)}{text} ({_kind(evidence)}{' on the host' if evidence == 'measured-on-host' else ''})"
        sides.append(text)
    name = "latency" if row.what == "median_ms" else re.sub("_(s|ms|bytes)$", "", formatting.line(row.what)).replace("_", " ")
    return {"what": name, "a": sides[0], "b": sides[1]}


def _figure(key: str, value: Any, metric: str) -> str:
    """Format a value by the unit that its name ends in."""
    if value is None:
        return formatting.NONE
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.startswith("quality") or key == "min_quality":
            return formatting.quality(metric, value)
        if key.endswith("_ms"):
            return formatting.milliseconds(value)
        if key.endswith("_bytes"):
            return formatting.size(int(value))
        if key.endswith("_s"):
            return formatting.seconds(value)
        if key in ("macs", "parameters"):
            return formatting.count(int(value))
    return formatting.value_words(value)
