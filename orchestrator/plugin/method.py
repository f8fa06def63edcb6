"""The contract of a method, and the context that a method is handed: a plugin needs nothing else of the core."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from orchestrator.plugin.parameters import Parameter
from orchestrator.values.recipe import ParameterValue
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Inputs = Mapping[str, Tensor]
    Loss = Callable[[Any, Inputs, "Tensor | None"], Tensor]


class Need(StrEnum):
    """What a method needs of the task; where it is missing the method is not offered, and the run says so."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    LABELS = "labels"


class Train(Protocol):
    """The training loop that a method is handed."""

    def __call__(self, model: "nn.Module", *, epochs: float, loss: "Loss", learning_rate: float) -> None:
        """Train `model` in place on the train split.

        AdamW under a one-cycle schedule, gradients clipped to norm 1, seeded; the model is left in eval mode with
        the weights after the last step.

        Args:
            epochs: Passes over the train split; fractions are served.
            loss: `loss(outputs, inputs, labels)`, a scalar; `labels` is None where the split has none.
            learning_rate: The peak of the schedule.

        Raises:
            MethodError: when the loss is not finite.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildContext:
    """What a method may use while it works.

    Attributes:
        original: The network as the user gave it, in eval mode, never to be changed (the teacher of a distillation);
            None for a task that is only an ONNX file.
        example: A batch of two validation examples: `{input name: tensor}`.
        forward: `forward(model, inputs)` calls the model as this task's networks are called.
        calibration: `calibration(n, batch)` yields batches of at most `n` examples in all, as `{input name: array}`.
        train: The training loop.
        task_loss: `task_loss(outputs, labels)`, the user's loss or cross entropy; None where there are no labels.
        workspace: A folder of the candidate's own, for scratch files.
        seed: Everything random in a method starts from this number.
        epochs: Epochs of recovery training that this run's budget can pay for one candidate: (least, most).
    """

    target: Target
    task: TaskDescription
    original: "nn.Module | None"
    example: "Inputs"
    forward: "Callable[[nn.Module, Inputs], Any]"
    calibration: "Callable[[int, int], Iterator[dict[str, np.ndarray]]]"
    train: Train
    task_loss: "Callable[[Any, Tensor], Tensor] | None"
    workspace: Path
    seed: int
    epochs: tuple[float, float]


class Method(ABC):
    """One way to change a model. Subclass `TorchMethod` or `OnnxMethod`.

    Class attributes, all of them the declaration that the search space is computed from:
        name: As it stands in recipes ("channel-pruning").
        version: Raised whenever the same parameters would make another model.
        family: At most one method of a family stands in a recipe ("pruning", "quantization", "distillation", "morphology").
        summary: One sentence, with the paper.
        parameters: Names, defaults and search ranges.
        needs: What the task must offer.
        after: Families that come earlier than this method where both stand in a recipe.
        requires: Where not empty, one of these families must stand earlier in the recipe.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[str]
    summary: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    needs: ClassVar[frozenset[Need]] = frozenset()
    after: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset()

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        """The parameters with the search ranges that the target makes legal and useful.

        Raises:
            Refused: the target does not run what this method makes, with the reason.
        """
        return self.parameters


class TorchMethod(Method):
    """A method from torch module to torch module."""

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """The search ranges for this network, given those that the target left. Called once, on the original.

        Raises:
            Refused: this network offers nothing to work on, with the reason.
        """
        return parameters

    @abstractmethod
    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        """The changed network; `model` is the method's own copy and may be changed in place.

        Raises:
            MethodError: it cannot be done on this network, with the reason.
        """


class OnnxMethod(Method):
    """A method from ONNX file to ONNX file."""

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """The search ranges for this file, given those that the target left. Called once, on the exported original.

        Raises:
            Refused: this network offers nothing to work on, with the reason.
        """
        return parameters

    @abstractmethod
    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        """The path of the changed file, inside `context.workspace`; the file at `model` is left as it is.

        Raises:
            MethodError: it cannot be done on this network, with the reason.
        """
