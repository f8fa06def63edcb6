"""What is known about a task without loading it: a model, its data splits and the quality metric."""

from dataclasses import dataclass
from typing import Literal

from orchestrator.values.direction import Direction

SPLITS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output: its name, NumPy dtype name and shape; the first axis (examples) is left out."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDescription:
    """A task as plain data.

    Attributes:
        model, data: The references that the user gave ("file.py:factory", "model.onnx", "arrays.npz").
        kind: "torch" when the model can be trained, "onnx" when only its file is there.
        classes: Number of classes where labels are class indices and the output holds one logit each; else None.
        labelled: The splits that have labels.
        examples: Number of examples in each split that is there.
        weights_digest, data_digest: SHA-256 of the model's weights, and of the data.
        digest: SHA-256 of both.
    """

    name: str
    model: str
    data: str
    kind: Literal["torch", "onnx"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: int | None
    metric: str
    direction: Direction
    examples: dict[str, int]
    labelled: tuple[str, ...]
    digest: str
    weights_digest: str
    data_digest: str
