"""One finding of `orchestrate doctor`."""

from dataclasses import dataclass
from typing import Literal

FindingState = Literal["ok", "warning", "missing", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The state of one thing that was examined, with the fix.

    Attributes:
        section: One of libraries, extras, plugins, runtimes, devices, machine, targets.
        name: What was examined.
        state: "missing": not installed or not set up; "broken": does not work; "warning": works, and could be better.
        text: The state in words.
        fix: The command or action that fixes it; empty if there is nothing to fix.
        needed: True if the requested search does not run without it.
    """

    section: str
    name: str
    state: FindingState
    text: str
    fix: str = ""
    needed: bool = False

    @property
    def usable(self) -> bool:
        """True if it can be used as it is."""
        return self.state in ("ok", "warning")
