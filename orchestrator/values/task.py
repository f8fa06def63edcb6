"""A task: the references that name it, and its description as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.values.direction import Direction

SPLITS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """The task as given: references to the model, the data and what belongs to them.

    Attributes:
        name: Name in results and reports; None to derive it from the model.
        model: "file.py:factory", "package.module:factory" or "model.onnx"; None for the default task's.
        data: "file.py:factory", "package.module:factory" or "arrays.npz"; None for the default task's.
        metric: Name of a metric or "file.py:function"; None to choose it by labels and outputs.
        loss: Name of a training loss or "file.py:function"; None for the default.
        student: Reference of a student network to distil into.
        input_shapes: Sizes of the dynamic axes of an ONNX file: `{input name: shape}`.
    """

    name: str | None = None
    model: str | None = None
    data: str | None = None
    metric: str | None = None
    loss: str | None = None
    student: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output: its name, NumPy dtype name and shape without the first axis (examples)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDescription:
    """A task as plain data.

    Attributes:
        spec: The task as given, with absolute references.
        kind: "torch" if the model can be trained, "onnx" if there is only its file.
        classes: Number of classes if labels are class indices and the output holds one logit each; else None.
        metric: Name of the metric in use.
        direction: Direction in which the metric improves.
        labelled: The splits that have labels.
        examples: Number of examples in each split.
        weights_digest: SHA-256 of the model's weights.
        data_digest: SHA-256 of the data.
        digest: SHA-256 of both.
    """

    spec: TaskSpec
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

    @property
    def name(self) -> str:
        """Return the name in results and reports."""
        return self.spec.name or ""
