"""The contract of a report format."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.values.check import CheckResult
from orchestrator.values.results import RunResult

if TYPE_CHECKING:
    from orchestrator.report.run_diff import RunComparison


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFormat:
    """Functions that return reports as text. None for a document that the format does not have.

    Attributes:
        run: Renders a run: `orchestrate report RUN --format NAME`.
        check: Renders a check: `orchestrate check`.
        comparison: Renders a comparison of two runs: `orchestrate compare-runs`.
    """

    run: Callable[[RunResult], str] | None = None
    check: Callable[[CheckResult], str] | None = None
    comparison: "Callable[[RunComparison], str] | None" = None
