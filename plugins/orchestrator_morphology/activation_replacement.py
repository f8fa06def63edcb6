"""Replacement of smooth activation functions by cheaper ones."""

import copy
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, Choice, MethodError, Parameters, ParameterValues, Refused, narrowed
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn


class ActivationReplacement(MorphologyMethod):
    """Replaces SiLU, GELU, Mish, ELU, ... by ReLU or Hardswish (Howard et al. 2019), which runtimes fuse and quantize well.

    It replaces activation layers, activation functions in attributes of a module, and calls in a `forward` that torch.fx can
    trace (the result is then a traced network, whose functional dropouts stay in eval mode). Gates (sigmoid, tanh, those of
    recurrent layers) do not change. The outputs change, so that recovery training should follow.
    """

    name = "activation-replacement"
    version = 1
    reads = frozenset[str]()
    summary = "Replaces smooth activations by ReLU or Hardswish (Howard et al. 2019, MobileNetV3, section 5.2)."
    parameters: ClassVar[Parameters] = (Choice(name="to", help="the new activation", choices=("relu", "hardswish")),)

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.activations import replace_activations

        reason = "this network has no activation that ReLU or Hardswish is cheaper than"
        choices: list[str] = []
        for to in ("hardswish", "relu"):
            try:
                if replace_activations(copy.deepcopy(model), to, context)[1]:
                    choices.insert(0, to)
            except MethodError as error:
                reason = str(error)
        if not choices:
            raise Refused(reason)
        return narrowed(parameters, to={"choices": tuple(choices)})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"smooth activations replaced by {parameters['to']}"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator_morphology.activations import replace_activations

        changed, count = replace_activations(model, str(parameters["to"]), context)
        if not count:
            raise MethodError(f"{self.name}: this network has no activation to replace by {parameters['to']}")
        return changed
