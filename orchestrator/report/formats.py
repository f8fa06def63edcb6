"""The report's formats by name; a plugin adds others by the hook `orchestrator_reports`."""

from collections.abc import Callable

from orchestrator.report.html import render_html
from orchestrator.report.markdown import render_markdown
from orchestrator.report.results import render_json
from orchestrator.values.results import RunResult

FORMATS: dict[str, Callable[[RunResult], str]] = {
    "html": render_html,
    "json": render_json,
    "markdown": render_markdown,
}
