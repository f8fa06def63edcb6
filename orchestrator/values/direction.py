"""The direction of a quality metric."""

from enum import StrEnum


class Direction(StrEnum):
    """Direction in which a metric improves."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    @property
    def sign(self) -> float:
        """Return the factor that turns the metric's values so that larger is better."""
        return 1.0 if self is Direction.MAXIMIZE else -1.0

    def gain(self, value: float, reference: float) -> float:
        """Return how much better a value is than a reference, in the metric's unit; negative if it is worse."""
        return self.sign * (value - reference)

    def better(self, value: float, reference: float) -> bool:
        """Return True if a value is better than a reference."""
        return self.gain(value, reference) > 0
