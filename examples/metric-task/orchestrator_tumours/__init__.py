"""A ready-made task with a metric of its own: `orchestrate search --metric macro-f1`, with `--model` and `--data` of the task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.plugin import InputError, Metric, TaskSource, hookimpl

if TYPE_CHECKING:
    import numpy as np


class MacroF1(Metric):
    """The mean over the classes of the harmonic mean of precision and recall (van Rijsbergen 1979).

    No mean over examples: one number for all of them. Its interval comes from drawing examples again.
    """

    name = "macro-f1"

    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        import numpy as np

        if labels is None:
            raise InputError("macro-f1 needs labels")
        logits = outputs[0]
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise InputError(
                f"macro-f1 needs one label and one row of logits an example, but got {labels.shape} and {logits.shape}"
            )
        top = logits.argmax(1)
        scores = []
        for label in np.unique(labels):
            right = np.count_nonzero((top == label) & (labels == label))
            scores.append(2 * right / (np.count_nonzero(top == label) + np.count_nonzero(labels == label)))
        return np.asarray(np.mean(scores), np.float64)


@hookimpl
def orchestrator_metrics() -> list[Metric]:
    """macro-f1."""
    return [MacroF1()]


@hookimpl
def orchestrator_tasks() -> list[TaskSource]:
    """tumours."""
    return [
        TaskSource(
            name="tumours",
            summary="benign or malignant from 30 measurements (UCI, through scikit-learn); two hidden layers",
            model="orchestrator_tumours.network:network",
            data="orchestrator_tumours.data:splits",
        )
    ]
