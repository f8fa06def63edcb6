"""CharacterizedMachine: what measuring a machine gave. FitCheck: a network that its model was held against."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.values.profile import HardwareProfile, NumberFormat
from orchestrator.values.results import Difference


@dataclass(frozen=True, kw_only=True, slots=True)
class FitCheck:
    """A network that was not in the fit: measured, and estimated from the profile that came of it.

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
        """The estimate's relative error: +0.1 is ten per cent too slow."""
        return self.estimated.value / self.measured.value - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterizedMachine:
    """A machine's profile as measured.

    Attributes:
        checks: Small networks that were not in the fit: measured, and estimated from the profile.
        notes: What a reader must know: what the budget did not reach, what could not be run, how steady the machine was.
        path: The file that was written; None: none was asked for.
    """

    profile: HardwareProfile
    checks: tuple[FitCheck, ...]
    notes: tuple[str, ...]
    seconds: float
    path: Path | None = None

    @property
    def mean_error(self) -> float | None:
        """Mean relative error of the estimates of networks that were not in the fit; None where none was measured."""
        return sum(abs(check.error) for check in self.checks) / len(self.checks) if self.checks else None
