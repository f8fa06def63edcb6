"""Fidelity: similarity of the outputs with the original's, for unlabelled data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.plugin import InputError, Metric

if TYPE_CHECKING:
    import numpy as np


class Fidelity(Metric):
    """Mean cosine similarity of each example's outputs (all of them, as one vector) with the original's."""

    name = "fidelity"
    needs_labels = False
    needs_reference = True

    def score(
        self, outputs: "Sequence[np.ndarray]", labels: "np.ndarray | None", reference: "Sequence[np.ndarray] | None"
    ) -> "np.ndarray":
        """Return the cosine similarity of each example, shape (N,)."""
        import numpy as np

        if reference is None:
            raise InputError("fidelity needs the original's outputs")
        flat = [np.concatenate([o.reshape(len(o), -1) for o in side], axis=1, dtype=np.float64) for side in (outputs, reference)]
        if flat[0].shape != flat[1].shape:
            raise InputError(f"outputs of shape {flat[0].shape} do not fit the original's {flat[1].shape}")
        norms = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
        dots = np.einsum("ij,ij->i", flat[0], flat[1])
        both_zero = (flat[0] == flat[1]).all(axis=1)
        return np.where(both_zero, 1.0, dots / np.maximum(norms, 1e-30))
