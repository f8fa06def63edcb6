"""HTML: one self-contained page without network requests, in which all text is escaped."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.plugin import Importance, RunResult, StepResult
from orchestrator.plugin.report import (
    Column,
    RunComparison,
    approximate,
    changes,
    columns,
    comparison_content,
    failure_groups,
    formatting,
    headline,
    key_figures,
    objective,
    objective_label,
    on_host,
    ordered,
    place,
    recommended,
    role,
    shown_quality,
)
from orchestrator_reports.charts import agreement_of, course_of, why_no_course
from orchestrator_reports.plot import plot_of

FOLDER = Path(__file__).parent
PHASES = ("building", "scoring", "measuring", "preparing", "overhead")
LISTED = 8
"""Largest number of parameters shown by importance."""


def render_html(run: RunResult) -> str:
    """Return the page of a run: headline, front, layers, table, failures, course and environment."""
    return page(
        "report.html.j2",
        run=run,
        title=f"{formatting.line(run.task.name)} on {place(run)}",
        headline=headline(run),
        best=recommended(run),
        figures=key_figures(run),
        label=objective_label(run),
        plot=plot_of(run),
        columns=columns(run),
        front_columns=_front_columns(run),
        candidates=ordered(run),
        front=[candidate for candidate in ordered(run) if candidate.id in (run.baseline.id, *run.front, run.recommended)],
        layers=[(c, changes(run.layers[c.id])) for c in ordered(run) if c.id in run.layers],
        role=lambda candidate: role(run, candidate),
        approximate=approximate,
        objective=lambda candidate: objective(run, candidate),
        on_host=on_host,
        shown_quality=shown_quality,
        groups=failure_groups(run),
        limits=[formatting.limit_words(k, v, run.task.metric) for k, v in run.target.limits.items() if v is not None],
        phases=[(name, run.seconds[name]) for name in PHASES if run.seconds.get(name)],
        states=_states(run),
        course=course_of(run),
        no_course=why_no_course(run),
        agreement=agreement_of(run),
        importance=_importance(run.importance, formatting.line(run.task.metric)),
        parameters=lambda step: ", ".join(f"{name} {value}" for name, value in _flat(step.parameters)),
    )


def render_comparison(comparison: RunComparison) -> str:
    """Return the page of a comparison of two runs."""
    return page("comparison.html.j2", **comparison_content(comparison))


def page(template: str, **content: Any) -> str:
    """Render a template of this package with its style and script. All text is escaped and free of control characters."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            formatting.clean(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value
        ),
    )
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        words=formatting,
        flat=_flat,
        told=_told,
        # Drawings escape their own text; style and script are files of this package.
        drawn=lambda text: markupsafe.Markup(formatting.clean(text)),  # noqa: S704
        style=markupsafe.Markup((FOLDER / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=markupsafe.Markup(script),  # noqa: S704
        script_hash=_hash(script),
        **content,
    )


def _hash(script: str) -> str:
    """Return the script's hash for the page's content security policy, which blocks any other script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _front_columns(run: RunResult) -> list[Column]:
    """Return the columns of the front: quality, its loss, the objective latency, its ratio, the file size."""
    metric, listed = formatting.line(run.task.metric), columns(run)
    quality = [c for c in listed if c.title in (f"{metric}, validation", f"{metric}, test")]
    timed = [c for c in listed if c.title.startswith(("latency on ", "ratio to the original"))]
    return [*quality, *timed[:2], *(c for c in listed if c.title == "file")]


def _importance(found: Importance | None, metric: str) -> dict[str, Any] | None:
    """Return (title, rows) for each objective; a row is name, importance, chance level, and whether it exceeds chance."""
    if found is None:
        return None
    groups = [
        (title, [(p.parameter.replace("_", " "), p.value, p.chance, p.value > p.chance) for p in listed[:LISTED]])
        for title, listed in ((metric, found.quality), ("latency", found.latency))
        if listed
    ]
    looked_at = len(found.quality) + len(found.latency)
    return {"trials": found.trials, "needed": found.needed, "best": found.best, "groups": groups, "looked_at": looked_at}


def _states(run: RunResult) -> list[tuple[str, int]]:
    """Return the number of candidates in each state."""
    states = [candidate.state for candidate in run.candidates]
    return [(state, states.count(state)) for state in ("complete", "stopped", "rejected", "failed") if state in states]


def _told(recipe: Sequence[StepResult]) -> str:
    """Return a recipe as a sentence with values that do not wrap from their units."""
    return formatting.sentence(recipe).replace(" %", "\u00a0%")


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as rows of a name and a value."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{formatting.line(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} ")
        elif name.endswith(" bytes") and isinstance(value, int):
            rows.append((name.removesuffix(" bytes"), formatting.size(value)))
        else:
            rows.append((name, formatting.value_words(value)))
    return rows
