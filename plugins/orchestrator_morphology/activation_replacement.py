"""Cheaper activation functions in the place of smooth ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import BuildContext, Choice, MethodError, Parameter, ParameterValue, Refused, TorchMethod, narrowed

if TYPE_CHECKING:
    from torch import nn


class ActivationReplacement(TorchMethod):
    """Replaces SiLU, GELU, Mish, ELU, ... by ReLU or Hardswish, which runtimes fuse into the layer before and quantize well.

    Served are activation layers, activation functions kept as an attribute of a module, and calls in a `forward` that torch.fx
    can trace (then the network comes back as a traced one, whose dropouts by function stay as in eval mode). Gates (sigmoid,
    tanh, those of recurrent layers) stay. The network answers differently at once: recovery training belongs behind it.
    """

    name = "activation-replacement"
    version = 1
    family = "morphology"
    reads = frozenset[str]()
    summary = "Replaces smooth activations by ReLU or Hardswish (Howard et al. 2019, MobileNetV3, section 5.2)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="to", help="the activation that the others become", choices=("relu", "hardswish")),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        import copy

        from orchestrator_morphology.activations import replace

        reasons, choices = [], []
        for to in ("relu", "hardswish"):
            try:
                if replace(copy.deepcopy(model), to, context)[1]:
                    choices.append(to)
            except MethodError as error:
                reasons.append(str(error))
        if not choices:
            raise Refused(reasons[0] if reasons else "this network has no activation that ReLU or Hardswish is cheaper than")
        return narrowed(parameters, to={"choices": tuple(choices)})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"smooth activations replaced by {parameters['to']}"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_morphology.activations import replace

        changed, count = replace(model, str(parameters["to"]), context)
        if not count:
            raise MethodError(f"{self.name}: this network has no activation to replace by {parameters['to']}")
        return changed
