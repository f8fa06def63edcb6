"""What was found: one line each, with how to fix it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "missing", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to: libraries, extras, plugins, runtimes, devices, machine, targets.
        state: "missing": it is not there; "broken": it is there and does not work; "warning": it works, and could be better.
        text: What was found.
        fix: How to fix it, where something is to be fixed.
        needed: Whether the search that was asked about does not run without it.
    """

    section: str
    name: str
    state: State
    text: str
    fix: str = ""
    needed: bool = False

    @property
    def usable(self) -> bool:
        """Whether it can be used as it is."""
        return self.state in ("ok", "warning")


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Everything that was found.

    Attributes:
        target: The target that was asked about.
    """

    target: str
    findings: tuple[Finding, ...]

    @property
    def obstacles(self) -> tuple[Finding, ...]:
        """What stops a search for the target."""
        return tuple(finding for finding in self.findings if finding.needed and not finding.usable)

    @property
    def works(self) -> bool:
        """Whether a search for the target would run."""
        return not self.obstacles

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"target": self.target, "works": self.works, "findings": [asdict(finding) for finding in self.findings]}
