"""report.html: one self-contained page that needs no network and trusts no text that it shows."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.report import words
from orchestrator.report.failures import failure_groups
from orchestrator.report.figures import objective, objective_label, on_host, ordered, place, role, shown_quality
from orchestrator.report.headline import headline, key_figures, recommended
from orchestrator.report.plot import plot_data
from orchestrator.report.table import approximate, columns
from orchestrator.values.results import RunResult

FOLDER = Path(__file__).parent
PHASES = ("building", "scoring", "measuring", "overhead")


def render_html(run: RunResult) -> str:
    """The page of a run: headline, front, table, failures, course and surroundings, in one file."""
    import jinja2
    import markupsafe
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            words.clean(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value
        ),
    )
    plot = plot_data(run)
    # The plot's library is most of the page's weight: without points it is left out.
    scripts = [_script("report.js")]
    if plot["points"]:
        scripts.insert(0, get_plotlyjs().replace("\r\n", "\n"))
    return environment.get_template("report.html.j2").render(
        run=run,
        words=words,
        title=f"{words.line(run.task.name)} on {place(run)}",
        headline=headline(run),
        best=recommended(run),
        figures=key_figures(run),
        label=objective_label(run),
        plot=plot,
        island=markupsafe.Markup(_island(plot)),  # noqa: S704 - escaped for a script element by _island
        style=markupsafe.Markup((FOLDER / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        scripts=[markupsafe.Markup(script) for script in scripts],  # noqa: S704 - our own and plotly's
        hashes=[_hash(script) for script in scripts],
        columns=columns(run),
        candidates=ordered(run),
        role=lambda candidate: role(run, candidate),
        approximate=approximate,
        objective=lambda candidate: objective(run, candidate),
        on_host=on_host,
        shown_quality=shown_quality,
        groups=failure_groups(run),
        limits=[words.limit_words(k, v, run.task.metric) for k, v in run.target.limits.items() if v is not None],
        phases=[(name, run.seconds[name]) for name in PHASES if run.seconds.get(name)],
        states=_states(run),
        flat=_flat,
    )


def _script(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The script's name in the page's content security policy: no other script runs, should one ever get in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _island(data: object) -> str:
    """JSON that can stand in a script element: no `<` that could end it, no `&`, no line separator."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _states(run: RunResult) -> list[tuple[str, int]]:
    """How many candidates ended in which state."""
    states = [candidate.state for candidate in run.candidates]
    return [(state, states.count(state)) for state in ("complete", "stopped", "rejected", "failed") if state in states]


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a name and a value in words."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{words.line(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name} ")
        elif name.endswith(" bytes") and isinstance(value, int):
            rows.append((name.removesuffix(" bytes"), words.size(value)))
        else:
            rows.append((name, words.value_words(value)))
    return rows
