"""Markdown: tables, and text that contains no markup."""

import re
from collections.abc import Sequence

from orchestrator.report import formatting


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return a Markdown table of escaped cells; the first `left` columns are text, the others numbers."""
    rule = ["---" if place < left else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def safe(text: str) -> str:
    """Return text in one line, with all Markdown and HTML markup escaped."""
    escaped = re.sub(r"([\\`*_\[\]|#])", r"\\\1", formatting.line(text, 1000))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
