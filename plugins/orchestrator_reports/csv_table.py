"""CSV: one row a candidate, for spreadsheets and data frames."""

import csv
import io

from orchestrator.plugin import CandidateResult, RunResult
from orchestrator.plugin.report import formatting, ordered, role

HEADS = (
    "id",
    "state",
    "role",
    "recipe",
    "quality_validation",
    "quality_test",
    "evidence",
    "median_ms",
    "low_ms",
    "high_ms",
    "size_bytes",
    "peak_memory_bytes",
    "macs",
    "parameters",
)


def render_csv(run: RunResult) -> str:
    """Return a header and a row for each candidate, the original first; missing values are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADS)
    for candidate in (run.baseline, *(c for c in ordered(run) if c.id != run.baseline.id)):
        writer.writerow(["" if value is None else value for value in _row(run, candidate)])
    return file.getvalue()


def _row(run: RunResult, candidate: CandidateResult) -> list[object]:
    validation = candidate.quality.validation if candidate.quality else None
    test = candidate.quality.test if candidate.quality else None
    latency = candidate.latency[0] if candidate.latency else None
    return [
        candidate.id,
        candidate.state,
        role(run, candidate),
        formatting.sentence(candidate.recipe),
        validation.value if validation else None,
        test.value if test else None,
        latency.evidence if latency else None,
        latency.median_ms if latency else None,
        latency.low_ms if latency else None,
        latency.high_ms if latency else None,
        candidate.artifact.size_bytes if candidate.artifact else None,
        candidate.peak_memory_bytes,
        candidate.macs,
        candidate.parameters,
    ]
