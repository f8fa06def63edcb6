"""The summary at the end of a search on the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.report import formatting
from orchestrator.report.headline import headline
from orchestrator.report.selection import objective, objective_evidence, objective_label, on_host, ordered, role
from orchestrator.report.table import approximate
from orchestrator.values.results import CandidateResult, LatencyResult, RunResult

if TYPE_CHECKING:
    from rich.console import Console

ROWS = 10
# Replacements for terminals that are not UTF-8.
ASCII = str.maketrans({"→": ">", "−": "-", "±": "+-", "–": "-", "★": "*", "…": "~"})  # noqa: RUF001


def print_summary(run: RunResult, console: "Console", folder: Path) -> None:
    """Print the front, baseline first and recommended candidate marked, the reason, and the paths of the files."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        plain = formatting.clean(content)
        return Text(plain if console.encoding.startswith("utf") else plain.translate(ASCII), style=style)

    host = objective_evidence(run) != "measured-on-host" and any(on_host(c) for c in (run.baseline, *run.candidates))
    rows, left_out = _rows(run)
    wide = console.width >= 100
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=not wide)
    table.add_column(text("candidate"), overflow="fold")
    table.add_column(text(f"{formatting.line(run.task.metric)}\nvalidation"), justify="right", no_wrap=True)
    table.add_column(text("latency\n" + objective_label(run).replace(", ", ",\n", 1)), justify="right")
    if host:
        table.add_column(text("latency\nmeasured,\nthis host"), justify="right")
    table.add_column(text("file"), justify="right", no_wrap=True)
    for candidate in rows:
        best = candidate.id == run.recommended
        style = "bold green" if best else "dim" if candidate.id == run.baseline.id else ""
        name = text(f"★ {candidate.id} recommended" if best else candidate.id)
        name.append_text(text(_steps(candidate, wide), "not bold dim"))
        cells = [_quality(run, candidate), _time(objective(run, candidate))]
        if host:
            # A narrow terminal omits the interval of values that are not objectives.
            cells.append(_time(on_host(candidate), interval=wide))
        cells.append(formatting.size(candidate.artifact.size_bytes if candidate.artifact else None))
        table.add_row(name, *map(text, cells), style=style)
    console.print(table)
    if left_out:
        console.print(text(f"{left_out} more on the front, in the report", "dim"))
    failed = sum(role(run, candidate) == "failed" for candidate in run.candidates)
    if failed:
        console.print(text(f"{failed} of {len(run.candidates)} candidates failed; the report says why", "dim"))
    console.print(text(headline(run), "bold"))
    if run.reason:
        console.print(text(formatting.line(run.reason, 1000)))
    console.print()
    console.print(text(f"report       {folder / 'report.html'}"), soft_wrap=True)
    if run.recommended is not None:
        console.print(text(f"recommended  {folder / 'recommended'}"), soft_wrap=True)


def _rows(run: RunResult) -> tuple[list[CandidateResult], int]:
    """Return the baseline, then the front from fast to slow, and the number of members left out for lack of space."""
    front = [candidate for candidate in ordered(run)[1:] if candidate.id in (*run.front, run.recommended)]
    # `ordered` returns the recommended candidate first, so it is never left out.
    kept = front[: ROWS - 1]

    def time(candidate: CandidateResult) -> float:
        latency = objective(run, candidate)
        return latency.median_ms if latency else float("inf")

    return [run.baseline, *sorted(kept, key=time)], len(front) - len(kept)


def _steps(candidate: CandidateResult, wide: bool) -> str:
    """Return the recipe in one line, or a line for each step."""
    if not candidate.recipe:
        return ""
    recipe = formatting.recipe_words(candidate.recipe, parameters=False)
    return "\n" + (recipe if wide else recipe.replace(" → ", "\n→ "))


def _quality(run: RunResult, candidate: CandidateResult) -> str:
    if candidate.quality is None:
        return formatting.NONE
    figure, metric = candidate.quality.validation, run.task.metric
    return f"{formatting.quality(metric, figure.value, figure.examples)}\n{formatting.quality_span(metric, figure)}"


def _time(latency: LatencyResult | None, *, interval: bool = True) -> str:
    if latency is None:
        return formatting.NONE
    span = formatting.span(latency.low_ms, latency.high_ms, latency.median_ms)
    return f"{approximate(latency)}\n{span}" if interval else approximate(latency)
