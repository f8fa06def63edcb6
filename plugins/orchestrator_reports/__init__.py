"""Report formats: HTML, JSON, Markdown and CSV of a run, JUnit XML and Markdown of a check, HTML of a comparison of runs."""

from orchestrator.plugin import ReportFormat, hookimpl
from orchestrator.plugin.report import render_json
from orchestrator_reports.csv_table import render_csv
from orchestrator_reports.html import render_comparison, render_html
from orchestrator_reports.junit import render_junit
from orchestrator_reports.markdown import render_check_markdown, render_markdown


@hookimpl
def orchestrator_reports() -> dict[str, ReportFormat]:
    """Return the built-in formats by name."""
    return {
        "html": ReportFormat(run=render_html, comparison=render_comparison),
        "json": ReportFormat(run=render_json),
        "markdown": ReportFormat(run=render_markdown, check=render_check_markdown),
        "csv": ReportFormat(run=render_csv),
        "junit": ReportFormat(check=render_junit),
    }
