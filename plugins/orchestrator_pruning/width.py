"""Width multiplier (Howard et al. 2017, "MobileNets"), applied to a trained network.

It prunes channels, and is therefore in this package; as a change of the whole network it is of the family "morphology".
"""

from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    MethodError,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    TorchMethod,
    number,
    percent,
)
from orchestrator_pruning.base import channel_multiple

if TYPE_CHECKING:
    from torch import nn


class WidthMultiplier(TorchMethod):
    """Narrows every layer by the same factor, residual streams included (Howard et al. 2017, MobileNets).

    The channels of largest magnitude stay, with their trained weights.
    """

    name = "width-multiplier"
    version = 1
    family = "morphology"
    reads = frozenset({"target.channel_multiple"})
    summary = "Narrows all layers by one factor, with the weights of the channels that stay (Howard et al. 2017, MobileNets)."
    parameters: ClassVar[Parameters] = (
        Number(
            name="multiplier",
            cheaper="low",
            help="remaining share of the channels of every layer, before rounding to the target's channel multiple",
            low=0.5,
            high=0.875,
            step=0.125,
            default=0.75,
            bounds=(0.05, 0.99),
        ),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator.plugin.channel_groups import removable_groups
        from orchestrator_pruning import plan

        groups, multiple = removable_groups(model, context), channel_multiple(context.target)
        least = number(parameters, "multiplier").low
        if not plan.prunes(groups, plan.uniform(groups, 1 - least, multiple)):
            raise Refused(
                f"no layer of this network can be narrowed to {least:g} of its width in multiples of {multiple} channels"
            )
        return parameters

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"every layer narrowed to {percent(parameters['multiplier'])} of its channels"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator.plugin.channel_groups import removable_groups
        from orchestrator_pruning import plan, pruner

        groups, multiple = removable_groups(model, context), channel_multiple(context.target)
        widths = plan.uniform(groups, 1 - float(parameters["multiplier"]), multiple)
        if not plan.prunes(groups, widths):
            raise MethodError(
                f"{self.name}: multiplier={parameters['multiplier']} narrows no layer in multiples of {multiple} channels; "
                "choose a lower multiplier"
            )
        pruner.prune(model, groups, "l2", widths, context)
        return model
