"""A method in one file: smooth activations become ReLU6, which small devices compute at once and which quantizes well."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    Method,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import nn

SMOOTH = ("SiLU", "GELU", "Hardswish", "Mish")


class Relu6(TorchMethod):
    """Replaces smooth activation modules (Krishnamoorthi 2018, section 5, on activations and quantization)."""

    name = "relu6"
    version = 1
    family = "morphology"
    summary = "Smooth activations become ReLU6."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="which", help="all of them, or only those of the network's second half", choices=("all", "second-half")),
    )

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        if not _smooth(model):
            raise Refused("the network has no smooth activation modules")
        return parameters

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from torch import nn

        names = _smooth(model)
        for name in names if parameters["which"] == "all" else names[len(names) // 2 :]:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, nn.ReLU6())
        return model


def _smooth(model: "nn.Module") -> list[str]:
    return [name for name, module in model.named_modules() if type(module).__name__ in SMOOTH]


@hookimpl
def orchestrator_methods() -> list[Method]:
    """relu6."""
    return [Relu6()]
