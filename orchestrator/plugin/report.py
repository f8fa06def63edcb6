"""Content of reports: selections, tables, texts and the hypervolume, for plugins that render reports."""

from orchestrator.report import formatting
from orchestrator.report.changes import changes
from orchestrator.report.check_text import HEADS as CHECK_HEADS
from orchestrator.report.check_text import notes as check_notes
from orchestrator.report.check_text import place_of as check_place
from orchestrator.report.check_text import rows as check_rows
from orchestrator.report.check_text import verdict_line as check_verdict
from orchestrator.report.failures import failure_groups
from orchestrator.report.headline import headline, key_figures, recommended
from orchestrator.report.hypervolume import box_of, course, reference_words, why_no_box
from orchestrator.report.markdown_table import safe
from orchestrator.report.markdown_table import table as markdown_table
from orchestrator.report.results import render_json
from orchestrator.report.run_diff import RunComparison
from orchestrator.report.run_diff_text import comparison_content
from orchestrator.report.selection import (
    Role,
    estimated,
    objective,
    objective_evidence,
    objective_label,
    on_host,
    ordered,
    place,
    role,
    shown_quality,
)
from orchestrator.report.table import Column, approximate, columns

__all__ = [
    "CHECK_HEADS",
    "Column",
    "Role",
    "RunComparison",
    "approximate",
    "box_of",
    "changes",
    "check_notes",
    "check_place",
    "check_rows",
    "check_verdict",
    "columns",
    "comparison_content",
    "course",
    "estimated",
    "failure_groups",
    "formatting",
    "headline",
    "key_figures",
    "markdown_table",
    "objective",
    "objective_evidence",
    "objective_label",
    "on_host",
    "ordered",
    "place",
    "recommended",
    "reference_words",
    "render_json",
    "role",
    "safe",
    "shown_quality",
    "why_no_box",
]
