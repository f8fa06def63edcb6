"""A comparison of two runs as a page and on the terminal."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.report import words
from orchestrator.report.comparing import Changed, FrontMember, RunComparison
from orchestrator.report.html import page
from orchestrator.report.terminal import ASCII

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


def render_comparison(found: RunComparison) -> str:
    """The page: notes, hypervolume, fronts, and every setting and figure that is not the same."""
    return page(
        "comparison.html.j2",
        title=headline(found),
        found=found,
        members=[_row(member, found.metric) for member in found.front],
        sections=[(title, [_shown(row, found.metric) for row in getattr(found, name)]) for name, title in SECTIONS],
    )


def print_comparison(found: RunComparison, console: "Console") -> None:
    """The same for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        plain = words.clean(content)
        return Text(plain if console.encoding.startswith("utf") else plain.translate(ASCII), style=style)

    console.print(text(headline(found), "bold"))
    for name, run in zip("AB", found.names, strict=True):
        console.print(text(f"{name}: {run}", "dim"), soft_wrap=True)
    for note in found.notes:
        console.print(text(note, "yellow"))
    console.print(text(_volumes(found)))
    for title, rows in _tables(found):
        table = Table(box=box.SIMPLE_HEAD, title=text(title, "bold"), title_justify="left", pad_edge=False)
        for column in ("", "A", "B") if rows and len(rows[0]) == 3 else ("front", "on", "quality", "latency", "file"):
            # Figures stay whole: the recipes take what room there is.
            table.add_column(text(column), overflow="fold", no_wrap=column in ("on", "quality", "latency", "file"))
        for row in rows:
            table.add_row(*map(text, row))
        console.print(table)


def headline(found: RunComparison) -> str:
    """One sentence."""
    parts = [title.lower() for name, title in SECTIONS if name not in ("budget", "recommended") and getattr(found, name)]
    only = {side: sum(member.on == side for member in found.front) for side in ("a", "b", "both")}
    shared = f"{only['both']} recipe{'' if only['both'] == 1 else 's'}"
    front = f"the fronts share {shared}, {only['a']} only in A, {only['b']} only in B"
    best = "the recommended recipe changed" if any(row.what == "id" for row in found.recommended) else "the same is recommended"
    other = f"; different: {', '.join(parts)}" if parts else "; task, target, options, versions and plugins are the same"
    return f"{front[0].upper()}{front[1:]}; {best}{other}."


def _volumes(found: RunComparison) -> str:
    volume = found.hypervolume
    if volume.a is None or volume.b is None:
        return f"Hypervolume: not compared, {volume.reason}."
    return f"Hypervolume: A {volume.a:.3f}, B {volume.b:.3f} (reference point {volume.reference})."


def _tables(found: RunComparison) -> Iterator[tuple[str, list[list[str]]]]:
    for name, title in SECTIONS:
        rows = [_shown(row, found.metric) for row in getattr(found, name)]
        if rows:
            yield title, [[row["what"], row["a"], row["b"]] for row in rows]
    members = []
    for member in found.front:
        row = _row(member, found.metric)
        cells = [text for text, _ in row["cells"]]
        pairs = [f"{cells[k]} / {cells[k + 1]}" for k in (0, 2, 4)]
        members.append([f"{row['id']}\n{row['recipe']}", row["on"], *pairs])
    if members:
        yield "Fronts, A / B", members


def _row(member: FrontMember, metric: str) -> dict[str, Any]:
    cells: list[tuple[str, float | None]] = []
    for key in ("quality", "median_ms", "size_bytes"):
        for side in (member.a, member.b):
            value = None if side is None else side[key]
            cells.append((_figure(key, value, metric), value))
    return {"id": words.line(member.identifier), "recipe": words.line(member.recipe), "on": ON[member.on], "cells": cells}


def _shown(row: Changed, metric: str) -> dict[str, str]:
    return {
        "what": re.sub("_(s|ms|bytes)$", "", words.line(row.what)).replace("_", " "),
        "a": _figure(row.what, row.a, metric),
        "b": _figure(row.what, row.b, metric),
    }


def _figure(key: str, value: Any, metric: str) -> str:
    """A value in words, by the unit that its name ends in."""
    if value is None:
        return words.NONE
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.startswith("quality") or key == "min_quality":
            return words.quality(metric, value)
        if key.endswith("_ms"):
            return words.milliseconds(value)
        if key.endswith("_bytes"):
            return words.size(int(value))
        if key.endswith("_s"):
            return words.seconds(value)
        if key in ("macs", "parameters"):
            return words.count(int(value))
    return words.value_words(value)
