"""A smaller network of the user in the place of the original."""

from typing import TYPE_CHECKING

from orchestrator.errors import one_line
from orchestrator.plugin import BuildContext, MethodError, Parameters, ParameterValues
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn


class Student(MorphologyMethod):
    """Replaces the network by the one of `--student`; distillation then trains it towards the original (Hinton et al. 2015).

    It is called as the original is, and must return tensors of the same number and shapes. Weights that the user's factory loads
    are kept; random ones are drawn from the run's seed.
    """

    name = "student"
    version = 1
    reads = frozenset({"student"})
    summary = "Replaces the network by the student that the user named, to be taught by the original (Hinton et al. 2015)."
    usual = True

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        _student(model, context)
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return "replaced by the student network"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        return _student(model, context)


def _student(model: "nn.Module", context: BuildContext) -> "nn.Module":
    """Return a new student that was run once.

    Raises:
        MethodError: No student was named, or it does not fit the task.
    """
    import torch

    from orchestrator_morphology.layers import shapes

    if context.student is None:
        raise MethodError("no student was named; give --student file.py:factory")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            student = context.student().eval()
        outputs = shapes(student, context)
    except Exception as error:  # anything that the user's factory and network raise
        raise MethodError(f"--student: the network cannot be called as the original is: {one_line(error)}") from error
    expected = shapes(model, context)
    if outputs != expected:
        raise MethodError(
            f"--student: the network must return tensors of the original's shapes {[list(s) for s in expected]},"
            f" but returned {[list(s) for s in outputs]}"
        )
    return student
