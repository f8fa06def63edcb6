"""GitHub annotations of a check (workflow commands: https://docs.github.com/actions, "Workflow commands")."""

from orchestrator.report import formatting
from orchestrator.values.check import CheckResult


def annotations(found: CheckResult) -> list[str]:
    """Return an error line for each regression and a warning line for each undecided, unjudged or partly evaluated criterion."""
    lines = []
    for criterion in found.criteria:
        level = {"regressed": "error", "ok": None}.get(criterion.verdict, "warning")
        said = criterion.reason
        if criterion.verdict == "undecided" and found.noisy is not None:
            level = "error" if found.noisy == "fail" and found.verdict == "regressed" else "warning"
            said = f"{said} (counted as {found.noisy}ed: --noisy {found.noisy})"
        if level is not None:
            lines.append(_command(level, f"{criterion.name}: {criterion.verdict}", said))
        if criterion.warning and criterion.warning not in criterion.reason:
            lines.append(_command("warning", f"{criterion.name}: mind", criterion.warning))
    return lines


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property(f'orchestrate check, {title}')}::{_data(message)}"


def _data(text: str) -> str:
    return formatting.clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
