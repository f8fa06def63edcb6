"""CharacterizedMachine: the result of a characterization. FitCheck: a network on which its model was validated."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.values.profile import HardwareProfile, NumberFormat
from orchestrator.values.results import Difference


@dataclass(frozen=True, kw_only=True, slots=True)
class FitCheck:
    """A network that was not in the fit: measured, and estimated from the resulting profile.

    Attributes:
        measured: Milliseconds of one inference, with the measurement's 95 % interval.
        estimated: The same from the profile, with its 90 % band.
    """

    network: str
    number_format: NumberFormat
    threads: int
    measured: Difference
    estimated: Difference

    @property
    def error(self) -> float:
        """Return the estimate's relative error: +0.1 means 10 % too slow."""
        return self.estimated.value / self.measured.value - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterizedMachine:
    """A machine's profile as measured.

    Attributes:
        checks: Small networks that were not in the fit: measured, and estimated from the profile.
        notes: Remarks: what exceeded the budget, what could not be run, how stable the machine was.
        path: The file that was written, or None.
    """

    profile: HardwareProfile
    checks: tuple[FitCheck, ...]
    notes: tuple[str, ...]
    seconds: float
    path: Path | None = None

    @property
    def mean_error(self) -> float | None:
        """Return the mean relative error of the estimates of networks outside the fit, or None without any."""
        return sum(abs(check.error) for check in self.checks) / len(self.checks) if self.checks else None
