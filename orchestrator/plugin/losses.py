"""Losses for the training of a student. Loads torch: plugins import it where they use it."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.errors import MethodError

if TYPE_CHECKING:
    from orchestrator.plugin.method import BuildContext

Forward = Callable[[nn.Module, Mapping[str, Tensor]], Any]
TaskLoss = Callable[[Any, Tensor], Tensor]


class TeacherLoss:
    """`loss(outputs, inputs, labels)`: how far a student's outputs are from its teacher's, mixed with the task's own loss.

    Args:
        teacher: In eval mode; never changed. A copy goes where the inputs are if that is elsewhere.
        forward: Calls the teacher.
        classes: Number of classes where outputs of that width are logits; None: all outputs are matched as they are.
        temperature: Of both softmax functions.
        task_loss: `task_loss(outputs, labels)`, None where there is none.
        label_weight: Share of the task loss, 0 to 1; at 1 the teacher is not asked at all.
    """

    @classmethod
    def of(
        cls,
        context: "BuildContext",
        *,
        temperature: float = 4.0,
        label_weight: float = 0.0,
        teacher: nn.Module | None = None,
    ) -> "TeacherLoss":
        """Towards the original of the task, or another network.

        Args:
            context: Context of the method.
            temperature: Temperature of both softmax functions.
            label_weight: Share of the task's own loss; the rest is the teacher's.
            teacher: None: the original. In a chain of ever smaller networks the one before is a closer teacher (Mirzadeh et al.
                2020, "Improved Knowledge Distillation via Teacher Assistant").

        Raises:
            MethodError: the task is only an ONNX file.
        """
        teacher = context.original if teacher is None else teacher
        if teacher is None:
            raise MethodError("the task has no torch network to learn from")
        return cls(
            teacher,
            context.forward,
            classes=context.task.classes,
            temperature=temperature,
            task_loss=context.task_loss,
            label_weight=label_weight,
        )

    def __init__(
        self,
        teacher: nn.Module,
        forward: Forward,
        *,
        classes: int | None,
        temperature: float,
        task_loss: TaskLoss | None,
        label_weight: float,
    ) -> None:
        self._teacher, self._forward = teacher, forward
        self._classes, self._temperature = classes, temperature
        self._task_loss, self._label_weight = task_loss, label_weight

    def __call__(self, outputs: Any, inputs: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch, a scalar tensor."""
        if labels is not None and self._task_loss is not None and self._label_weight == 1:
            return self._task_loss(outputs, labels)
        students = floats(outputs)
        with torch.no_grad(), _precision_of(students):
            targets = floats(self._forward(self._teacher_at(inputs), inputs))
        if len(students) != len(targets) or not targets:
            raise ValueError(f"student and teacher must give as many tensors, but gave {len(students)} and {len(targets)}")
        distance = torch.stack([self._distance(s, t) for s, t in zip(students, targets, strict=True)]).mean()
        if labels is None or self._task_loss is None or not self._label_weight:
            return distance
        return self._label_weight * self._task_loss(outputs, labels) + (1 - self._label_weight) * distance

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = student.float(), teacher.float()  # in autocast both may be of 16 bits
        if self._classes is not None and student.ndim >= 2 and student.shape[-1] == self._classes:
            return divergence(student, teacher, self._temperature)
        return mismatch(student, teacher)

    def _teacher_at(self, inputs: Mapping[str, Tensor]) -> nn.Module:
        device = next(iter(inputs.values())).device
        if next((p.device for p in self._teacher.parameters()), device) != device:
            self._teacher = copy.deepcopy(self._teacher).to(device)
        return self._teacher


def _precision_of(outputs: list[Tensor]) -> AbstractContextManager[object]:
    """Autocast to what the student was run in: a teacher in float32 beside it would take most of the time."""
    if outputs and outputs[0].dtype in (torch.float16, torch.bfloat16):
        return torch.autocast(outputs[0].device.type, outputs[0].dtype)
    return nullcontext()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened class probabilities, times T squared (Hinton et al. 2015, section 2).

    Args:
        student: Logits, shape (N, ..., classes).
        teacher: Logits of the same shape.
        temperature: Temperature of both softmax functions.
        student, teacher: Logits, shape (..., classes).

    Returns:
        The mean over all distributions, in nats.
    """
    log_student = functional.log_softmax(student / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=-1)
    pointwise = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return pointwise.sum(-1).mean() * temperature**2


def mismatch(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error in units of the teacher's variance; of vectors, 1 - cosine similarity besides.

    Args:
        student: Outputs.
        teacher: Outputs of the same shape.
        student, teacher: Of one shape, first axis the examples.
    """
    variance = teacher.var(unbiased=False).clamp(min=1e-8)
    error = (student - teacher).square().mean() / variance
    if student.ndim == 2 and student.shape[1] > 1:
        error = error + (1 - functional.cosine_similarity(student, teacher, dim=1)).mean()
    return error


def floats(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors of a network's output, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    values = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for value in values for tensor in floats(value)]
