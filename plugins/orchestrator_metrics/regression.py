"""Metrics of regressions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.plugin import InputError, Metric

if TYPE_CHECKING:
    import numpy as np


class MeanSquaredError(Metric):
    """Mean squared error of the first output; less is better."""

    name = "mse"
    direction = "minimize"

    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        """Return the squared error of each example, shape (N,)."""
        import numpy as np

        if labels is None:
            raise InputError("mse needs labels; without them use --metric fidelity")
        if outputs[0].size != labels.size:
            raise InputError(f"labels of shape {labels.shape} do not fit outputs of shape {outputs[0].shape}")
        error = outputs[0].reshape(len(labels), -1).astype(np.float64) - labels.reshape(len(labels), -1)
        scores: np.ndarray = (error**2).mean(axis=1)
        return scores
