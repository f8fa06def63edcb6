"""What a run leaves for people and programs: results.json, report.html, Markdown, cards and the terminal's summary."""

from orchestrator.report.card import render_card
from orchestrator.report.formats import FORMATS
from orchestrator.report.html import render_html
from orchestrator.report.markdown import render_markdown
from orchestrator.report.results import read_results, render_json, write_results
from orchestrator.report.terminal import print_summary

__all__ = [
    "FORMATS",
    "print_summary",
    "read_results",
    "render_card",
    "render_html",
    "render_json",
    "render_markdown",
    "write_results",
]
