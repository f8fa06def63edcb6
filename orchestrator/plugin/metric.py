"""The contract of a quality metric."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np


class Metric(ABC):
    """How good a model's outputs are.

    Class attributes:
        name: As it stands in results ("accuracy").
        direction: Whether more is better.
        needs_labels: Whether the split must have labels.
        needs_reference: Whether the original's outputs on the same examples are needed.
    """

    name: ClassVar[str]
    direction: ClassVar[Literal["maximize", "minimize"]] = "maximize"
    needs_labels: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False

    @abstractmethod
    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        """One score for each example, shape (N,), float64; the metric's value is their mean.

        A metric that is no mean of examples (F1, mean average precision) returns a single number, shape (): its interval
        comes from calling it on resampled examples.

        Args:
            outputs: The model's outputs, first axis the examples.
            labels: First axis the examples, or None.
            reference: The original's outputs on the same examples, where `needs_reference`.

        Raises:
            InputError: outputs and labels do not fit each other.
        """
