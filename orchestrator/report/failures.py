"""Failed, rejected and stopped candidates, grouped by reason."""

import re
from dataclasses import dataclass, field, replace

from orchestrator.report import formatting
from orchestrator.values.results import CandidateResult, RunResult

TITLES = {
    "error": "A step could not do its work",
    "crash": "The process crashed",
    "timeout": "It took too long",
    "out-of-memory": "Out of memory",
    "limit": "It broke a limit",
}
_FIGURES = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureGroup:
    """Candidates that failed in the same way for the same reason.

    Attributes:
        message: Their common message; the first one's if the messages differ only in numbers.
        alike: True if all messages are equal.
    """

    title: str
    message: str
    alike: bool = True
    candidates: list[CandidateResult] = field(default_factory=list)


def failure_groups(run: RunResult) -> list[FailureGroup]:
    """Return the groups, the largest first."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    for candidate in run.candidates:
        if candidate.state == "complete":
            continue
        title, message = _reason(candidate)
        key = title, _FIGURES.sub("#", message)  # "316 kB: size over 200 kB" and "240 kB: size over 200 kB" have the same reason
        group = groups.setdefault(key, FailureGroup(title=title, message=message))
        if group.message != message:
            groups[key] = group = replace(group, alike=False)
        group.candidates.append(candidate)
    return sorted(groups.values(), key=lambda group: -len(group.candidates))


def _reason(candidate: CandidateResult) -> tuple[str, str]:
    failure = candidate.failure
    if failure is None:
        known = {"stopped": "Stopped early: it could not reach the front", "rejected": "Rejected before it was built"}
        return known.get(candidate.state, "Failed, without a reason"), ""
    if candidate.state == "stopped" and failure.step == "estimate":
        return "Not simulated: by its estimate it could not reach the front", ""  # each message has its own numbers
    if candidate.state == "stopped":
        return "Stopped in its training: it could no longer reach the front", ""
    if candidate.state == "rejected" and failure.step == "sketch":
        return "Not trained: untrained it was beyond a limit already", ""
    title = TITLES.get(failure.kind, failure.kind)
    if candidate.state == "rejected":
        title = f"Rejected before it was built: {title[0].lower()}{title[1:]}"
    step = f" ({formatting.line(failure.step)})" if failure.step else ""
    return title + step, formatting.clean(failure.message).strip()
