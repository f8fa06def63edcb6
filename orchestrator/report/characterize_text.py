"""Terminal and JSON output of `orchestrate profiles characterize`."""

from typing import Any

from orchestrator.report.formatting import milliseconds, number, span
from orchestrator.report.profile_text import machine_lines
from orchestrator.values.characterization import CharacterizedMachine, FitCheck


def characterization_lines(found: CharacterizedMachine) -> list[str]:
    """Return lines with the machine, the validation of its estimates, notes, and how to use the file."""
    lines = [f"{found.profile.name}: {found.profile.title}", "", *machine_lines(found.profile)]
    if found.checks:
        lines += ["", "networks that were not in the fit: measured, and estimated from the profile", *_table(found.checks)]
    if found.mean_error is not None:
        lines += ["", f"mean error of these estimates: {number(100 * found.mean_error, 2)} %"]
    lines += [f"note: {note}" for note in found.notes]
    if found.path is not None:
        lines += ["", f"wrote {found.path} after {found.seconds:.0f} s; use it with --target {found.path}"]
    return lines


def characterization_tables(found: CharacterizedMachine) -> dict[str, Any]:
    """Return the same content as plain data; times in milliseconds."""
    return {
        "profile": found.profile.name,
        "path": None if found.path is None else str(found.path),
        "device": found.profile.device,
        "runtime": found.profile.runtimes[0].name,
        "mean_error": found.mean_error,
        "checks": [
            {
                "network": check.network,
                "number_format": check.number_format,
                "threads": check.threads,
                "measured_ms": check.measured.value,
                "measured_low_ms": check.measured.low,
                "measured_high_ms": check.measured.high,
                "estimated_ms": check.estimated.value,
                "low_ms": check.estimated.low,
                "high_ms": check.estimated.high,
                "error": check.error,
            }
            for check in found.checks
        ],
        "notes": list(found.notes),
        "seconds": found.seconds,
    }


def _table(checks: tuple[FitCheck, ...]) -> list[str]:
    rows = [("network", "arithmetic", "threads", "measured", "estimated", "90 % band", "error")]
    rows += [
        (
            check.network,
            check.number_format,
            str(check.threads),
            milliseconds(check.measured.value),
            milliseconds(check.estimated.value),
            span(check.estimated.low, check.estimated.high, check.estimated.value),
            f"{check.error:+.0%}",
        )
        for check in checks
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
