"""The table of a run as Markdown, for a pull request or a wiki."""

import re
from collections.abc import Sequence

from orchestrator.report import formatting
from orchestrator.report.failures import failure_groups
from orchestrator.report.headline import headline
from orchestrator.report.selection import ordered, place, role
from orchestrator.report.table import columns
from orchestrator.values.results import RunResult


def render_markdown(run: RunResult) -> str:
    """Headline, reason, the table of all candidates, and what did not work."""
    listed = columns(run)
    heads = [f"{column.title} ({column.evidence})" if column.evidence else column.title for column in listed]
    rows = []
    for candidate in ordered(run):
        part = role(run, candidate)
        cells = [column.cell(candidate) for column in listed]
        rows.append(
            [
                f"**{safe(candidate.id)}**" if part == "recommended" else safe(candidate.id),
                part,
                safe(formatting.sentence(candidate.recipe)),
                *(safe(f"{cell.text} {cell.note}".strip()) for cell in cells),
            ]
        )
    parts = [
        f"# {safe(run.task.name)} on {safe(place(run))}",
        f"**{safe(headline(run))}** {safe(formatting.line(run.reason, 1000))}".strip(),
        table(["candidate", "part", "recipe", *map(safe, heads)], rows, left=3),
        "Square brackets hold 95 % intervals; figures with ~ were computed, not measured, and have 90 % bands of their error.",
    ]
    if groups := failure_groups(run):
        parts.append("## What did not work, and why")
        lines = []
        for group in groups:
            names = ", ".join(safe(candidate.id) for candidate in group.candidates)
            reason = f": {safe(formatting.line(group.message))}" if group.message else ""
            lines.append(f"- {safe(group.title)}{reason} ({names})")
        parts.append("\n".join(lines))
    if run.notes:
        parts += ["## Notes", "\n".join(f"- {safe(formatting.line(note, 1000))}" for note in run.notes)]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table of cells that are safe already; the first `left` columns hold words, the others figures."""
    rule = ["---" if place < left else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def safe(text: str) -> str:
    """Text from outside in one line, so that Markdown and HTML see no marks in it."""
    escaped = re.sub(r"([\\`*_\[\]|#])", r"\\\1", formatting.line(text, 1000))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
