"""The user's own smaller network in the place of the original."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.plugin import BuildContext, MethodError, Parameter, ParameterValue, Refused, TorchMethod

if TYPE_CHECKING:
    from torch import nn


class Student(TorchMethod):
    """Replaces the network by the one that `--student` names; distillation trains it towards the original afterwards.

    It is called as the original is, and must answer with tensors of the same number and shapes. Weights that the user's factory
    brings stay; those that it draws are drawn from the run's seed.
    """

    name = "student"
    version = 1
    family = "morphology"
    reads = frozenset({"student"})
    summary = "Replaces the network by the student that the user named, to be taught by the original (Hinton et al. 2015)."
    before = frozenset({"pruning", "distillation", "graph", "quantization"})

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        try:
            _made(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return "replaced by the student network"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        return _made(model, context)


def _made(model: "nn.Module", context: BuildContext) -> "nn.Module":
    """The student, made anew and tried.

    Raises:
        MethodError: none was named, or it does not fit.
    """
    import torch

    from orchestrator_morphology.layers import shapes

    if context.student is None:
        raise MethodError("no student was named; give --student file.py:factory")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            student = context.student().eval()
        found = shapes(student, context)
    except Exception as error:  # whatever the user's factory and network raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(f"the student cannot be called as the network is: {reason:.200}") from error
    expected = shapes(model, context)
    if found != expected:
        raise MethodError(
            f"the student must answer with tensors of the network's shapes {[list(s) for s in expected]},"
            f" but gave {[list(s) for s in found]}"
        )
    return student
