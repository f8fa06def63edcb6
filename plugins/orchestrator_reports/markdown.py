"""Markdown: the table of a run and of a check, for a pull request or a wiki."""

from pathlib import Path

from orchestrator.plugin import CheckResult, RunResult
from orchestrator.plugin.report import (
    CHECK_HEADS,
    check_notes,
    check_place,
    check_rows,
    check_verdict,
    columns,
    failure_groups,
    formatting,
    headline,
    markdown_table,
    ordered,
    place,
    role,
    safe,
)

MARKS = {"ok": "ok", "regressed": "**regressed**", "undecided": "**undecided**", "not judged": "not judged"}


def render_markdown(run: RunResult) -> str:
    """Return the headline, the reason, the table of all candidates, and the failures."""
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
        markdown_table(["candidate", "part", "recipe", *map(safe, heads)], rows, left=3),
        "Square brackets hold 95 % intervals; values with ~ were computed, not measured, and have 90 % bands of their error.",
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


def render_check_markdown(found: CheckResult) -> str:
    """Return a section for a job summary or a pull request's comment."""
    grid = markdown_table(
        CHECK_HEADS,
        [
            [safe(r.name), safe(r.baseline), safe(r.candidate), safe(r.change), safe(r.limit), MARKS[r.verdict]]
            for r in check_rows(found)
        ],
        left=1,
    )
    where = f" on {safe(check_place(found))}" if found.device else ""
    parts = [
        f"### Model check: {safe(check_verdict(found))}",
        f"{safe(Path(found.candidate).as_posix())} beside {safe(Path(found.baseline).as_posix())}{where}",
        grid,
        "\n".join(f"- {safe(name)}: {safe(sentence)}" for name, sentence in check_notes(found)),
    ]
    return "\n\n".join(parts) + "\n"
