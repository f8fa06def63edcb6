"""The contract of a method, and the context that a method is handed: a plugin needs nothing else of the core."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from orchestrator.plugin.parameters import Parameter
from orchestrator.values.recipe import ParameterValue
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Inputs = Mapping[str, Tensor]
    Loss = Callable[[Any, Inputs, "Tensor | None"], Tensor]

TRAINING_PARTS = frozenset({"epochs", "student", "task_loss", "train"})
EVERYTHING = TRAINING_PARTS | {"target", "task"}
"""All that a method may declare in `reads`, in its coarsest parts."""


class Need(StrEnum):
    """What a method needs of the task; where it is missing the method is not offered, and the run says so."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    LABELS = "labels"


class Train(Protocol):
    """The training loop that a method is handed."""

    def __call__(
        self,
        model: "nn.Module",
        *,
        epochs: float,
        loss: "Loss",
        learning_rate: float,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        schedule: Literal["one-cycle", "cosine"] = "one-cycle",
        warm_up: float = 0.15,
        weight_decay: float | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """Train `model` in place on the train split.

        Gradients are clipped, everything random is seeded, and batch norms are estimated anew at the end; the model is left in
        eval mode with the weights after the last step. The state is kept at every epoch: a build that was stopped goes on there.

        Args:
            model: Network to train in place.
            epochs: Passes over the train split; fractions are served.
            loss: `loss(outputs, inputs, labels)`, a scalar; `labels` is None where the split has none.
            learning_rate: The peak of the schedule.
            optimizer: AdamW, or SGD with Nesterov's momentum of 0.9.
            schedule: One-cycle (Smith 2018) or a linear warm-up followed by half a cosine (Loshchilov and Hutter 2017).
            warm_up: Share of the steps before the peak.
            weight_decay: None: 1e-4 with AdamW, 5e-4 with SGD.
            after_step: Called after each update of the weights, which it may change in place (weights fixed by
                `orchestrator.plugin.masks.keep_zeros` stay zero without it).

        Raises:
            MethodError: when the loss is not finite.
        """


class Remember(Protocol):
    """Keeps what is dear to compute, for the whole run, its resumptions, and later runs on the same task."""

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the result of the first call of `compute` under this key, for this method and its input network.

        Args:
            key: Name of the value; contains all parameters that the value depends on.
            compute: Returns data that JSON can hold; called only where the key is not yet known. It may read the parts of the
                context that the method declares in `reads`.
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
        samples: `samples(n, batch)` yields `(inputs, labels)` tensors of at most `n` train examples in all, the same ones each
            time; of the calibration split, then the validation inputs without labels, where there is no train split.
        export: `export(model)` is the path of the network as a float ONNX file in the workspace.
        remember: Keeps tables that are computed once (sensitivities).
        student: The network that the user named by `--student`, made anew at each call; None where none was named.
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
    samples: "Callable[[int, int], Iterator[tuple[Inputs, Tensor | None]]]"
    export: "Callable[[nn.Module], Path]"
    remember: Remember
    student: "Callable[[], nn.Module] | None"
    workspace: Path
    seed: int
    epochs: tuple[float, float]


class Method(ABC):
    """One way to change a model. Subclass `TorchMethod`, `TorchToOnnxMethod` or `OnnxMethod`: what it takes and gives.

    Class attributes, all of them the declaration that the search space is computed from:
        name: As it stands in recipes ("channel-pruning").
        version: Raised whenever the same parameters would make another model.
        family: At most one method of a family stands in a recipe ("pruning", "quantization", "distillation", "morphology").
        summary: One sentence, with the paper.
        parameters: Names, defaults and search ranges.
        needs: What the task must offer.
        after: Families that come earlier than this method where both stand in a recipe.
        before: Families that come later than this method where both stand in a recipe.
        requires: Where not empty, one of these families must stand earlier in the recipe.
        learns_structure: Whether what it learns in a training decides what stays of the network: untrained, the same recipe then
            says nothing of how large and fast the model will be.
        keeps: Properties that later steps and trainings preserve: "zeros", weights that `transform` set to zero and fixed by
            `orchestrator.plugin.masks.keep_zeros`.
        reads: Parts of the context that the result of `transform` depends on (`orchestrator.plugin.reads`): "target.runtime",
            "task_loss", "train". A result is reused wherever the declared parts are the same, and the context offers no others.
            The default is everything: correct, and reused only within a task on one target with one budget.
        offer_reads: Parts that `legal` and `offer` may read besides.
        usual: Whether a search tries it that does not name its methods; others take part where a search names them or all.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[str]
    summary: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    needs: ClassVar[frozenset[Need]] = frozenset()
    after: ClassVar[frozenset[str]] = frozenset()
    before: ClassVar[frozenset[str]] = frozenset()
    requires: ClassVar[frozenset[str]] = frozenset()
    keeps: ClassVar[frozenset[Literal["zeros"]]] = frozenset()
    reads: ClassVar[frozenset[str]] = EVERYTHING
    offer_reads: ClassVar[frozenset[str]] = EVERYTHING
    usual: ClassVar[bool] = True
    learns_structure: ClassVar[bool] = False

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        """Return the parameters with the search ranges that are legal and useful on the target.

        Raises:
            Refused: the target does not run what this method makes, with the reason.
        """
        return self.parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        """Return a short description of a step with these parameters for reports: "INT8 static, 2 layers left in float".

        The default is "": reports then name the method and those parameters that differ from their defaults.
        """
        return ""


class TorchMethod(Method):
    """A method from torch module to torch module."""

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """Return the search ranges for this network, given those of `legal`. Called once, on the original.

        Raises:
            Refused, MethodError: This network offers nothing to work on, with the reason.
        """
        return parameters

    @abstractmethod
    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        """Return the changed network; `model` is the method's own copy and may be changed in place.

        Raises:
            MethodError: it cannot be done on this network, with the reason.
        """


class TorchToOnnxMethod(Method):
    """A method from torch module to ONNX file: the last on the module, the first on the file."""

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """Return the search ranges for this network, given those of `legal`. Called once, on the original.

        Raises:
            Refused, MethodError: This network offers nothing to work on, with the reason.
        """
        return parameters

    @abstractmethod
    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        """Return the path of the exported file in `context.workspace`; `model` is the method's own copy and may be changed.

        Raises:
            MethodError: it cannot be done on this network, with the reason.
        """


class OnnxMethod(Method):
    """A method from ONNX file to ONNX file."""

    def offer(self, model: Path, parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        """Return the search ranges for this file, given those of `legal`. Called once, on the exported original.

        Raises:
            Refused, MethodError: This network offers nothing to work on, with the reason.
        """
        return parameters

    @abstractmethod
    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        """Return the path of the changed file in `context.workspace`; the file at `model` must not be changed.

        Raises:
            MethodError: it cannot be done on this network, with the reason.
        """
