"""Where a figure comes from, and the two kinds of figure, which are never the same type."""

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """The evidence behind a latency, the strongest first."""

    MEASURED_ON_TARGET = "measured-on-target"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"
    MEASURED_ON_HOST = "measured-on-host"


MEASURED = (Evidence.MEASURED_ON_TARGET, Evidence.MEASURED_ON_HOST)
"""What was observed, with noise of its own; the others were computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A quantity that was observed.

    Attributes:
        samples: The raw observations, in the order in which they were made, in `unit`.
        low, high: The 95 % confidence interval of the median (bootstrap), in `unit`.
        disturbed: Why the figure should be read with care (a busy machine, ...), or None.
    """

    unit: str
    samples: tuple[float, ...]
    median: float
    low: float
    high: float
    p90: float
    p99: float
    disturbed: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A quantity that was computed, with its error band; never to be taken for a Measurement.

    Attributes:
        low, high: The band that holds the true value in about 90 % of cases by the source's own account, in `unit`.
        model: What computed it, with its version.
        unknown: Parts of the computed thing that the model has no figures for; the band is wider for them.
    """

    unit: str
    value: float
    low: float
    high: float
    model: str
    unknown: tuple[str, ...] = ()
