"""The width multiplier of Howard et al. 2017, "MobileNets", applied to a trained network: it inherits the wider one's weights.

It cuts like channel pruning, and so stands in this package; as a morph of the whole network it stands in recipes where morphs do.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    percent,
)
from orchestrator_pruning.surgery import channel_multiple, cut, sound_groups

if TYPE_CHECKING:
    from torch import nn


class WidthMultiplier(TorchMethod):
    """Makes every layer narrower by the same factor, residual streams too; the channels of largest magnitude stay."""

    name = "width-multiplier"
    version = 1
    family = "morphology"
    summary = "Narrows all layers by one factor, with the weights of the channels that stay (Howard et al. 2017, MobileNets)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Number(
            name="multiplier",
            cheaper="low",
            help="share of the channels of every layer that stays, before rounding to the target's channel multiple",
            low=0.5,
            high=0.875,
            step=0.125,
            default=0.75,
            bounds=(0.05, 0.99),
        ),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_pruning.plan import uniform

        try:
            groups = sound_groups(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        least = next(p.low for p in parameters if isinstance(p, Number))
        stay = uniform(groups, 1 - least, channel_multiple(context.target))
        if all(stay[group.root] == group.channels for group in groups):
            raise Refused(
                f"no layer of this network can be narrowed to {least:g} of its width in multiples of "
                f"{channel_multiple(context.target)} channels"
            )
        return parameters

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"every layer narrowed to {percent(parameters['multiplier'])} of its channels"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_pruning.plan import uniform

        groups = sound_groups(model, context)
        stay = uniform(groups, 1 - float(parameters["multiplier"]), channel_multiple(context.target))
        if all(stay[group.root] == group.channels for group in groups):
            raise MethodError(
                f"{self.name}: {parameters['multiplier']} of this network's widths are no other multiples of "
                f"{channel_multiple(context.target)} channels; choose a lower multiplier"
            )
        cut(model, groups, "l2", stay, context)
        return model
