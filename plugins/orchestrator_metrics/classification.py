"""Metrics of classifiers: the share of examples whose top class is correct, or equals the original's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.plugin import InputError, Metric

if TYPE_CHECKING:
    import numpy as np


def top_class(outputs: "Sequence[np.ndarray]") -> "np.ndarray":
    """Return the index of the largest value along the last axis of the first output; shape (N,) or (N, positions)."""
    if outputs[0].ndim < 2:
        raise InputError(f"a top class needs one logit a class, but the output has shape {outputs[0].shape}")
    # The last axis holds the classes, except in dense prediction (N, C, H, W), where it is the second.
    top: np.ndarray = outputs[0].argmax(axis=1 if outputs[0].ndim > 3 else -1)
    return top


def share_equal(left: "np.ndarray", right: "np.ndarray") -> "np.ndarray":
    """Return for each example the share of positions at which both are equal, shape (N,)."""
    if left.shape != right.shape:
        raise InputError(f"labels of shape {right.shape} do not fit top classes of shape {left.shape}")
    equal: np.ndarray = (left == right).reshape(len(left), -1).mean(axis=1, dtype="float64")
    return equal


class Accuracy(Metric):
    """Share of examples whose top class is the label; of positions, where each example has several."""

    name = "accuracy"

    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        """Return 1 for each correct example, 0 for the others; a share for several positions."""
        if labels is None:
            raise InputError("accuracy needs labels; without them use --metric fidelity or --metric agreement")
        return share_equal(top_class(outputs), labels)


class Agreement(Metric):
    """Share of examples whose top class is that of the original."""

    name = "agreement"
    needs_labels = False
    needs_reference = True

    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        """Return 1 for each example with the original's class, 0 for the others."""
        if reference is None:
            raise InputError("agreement needs the original's outputs")
        return share_equal(top_class(outputs), top_class(reference))
