"""The result of `orchestrate doctor`."""

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.values.finding import Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All findings, and their consequence for one target.

    Attributes:
        target: The requested target.
        findings: In the order in which they are printed.
    """

    target: str
    findings: tuple[Finding, ...]

    @property
    def obstacles(self) -> tuple[Finding, ...]:
        """The findings that stop a search for the target."""
        return tuple(finding for finding in self.findings if finding.needed and not finding.usable)

    @property
    def works(self) -> bool:
        """True if a search for the target would run."""
        return not self.obstacles

    def plain(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"target": self.target, "works": self.works, "findings": [asdict(finding) for finding in self.findings]}
