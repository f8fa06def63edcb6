"""Low-rank layers (Jaderberg et al. 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions", and others)."""

from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameters,
    ParameterValues,
    Refused,
    narrowed,
    number,
    percent,
)
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn

KINDS = ("spatial", "channel", "tucker")


class LowRank(MorphologyMethod):
    """Replaces layers by products of smaller ones wherever that takes fewer multiply-accumulates.

    A k x k convolution becomes k x 1 and 1 x k with "spatial" (Jaderberg et al. 2014), k x k to fewer channels and 1 x 1 with
    "channel" (Zhang et al. 2015), and 1 x 1, k x k between fewer channels, 1 x 1 with "tucker" (Kim et al. 2016). Linear layers
    and 1 x 1 convolutions become two by a singular value decomposition with all three. The rank of each layer is the least that
    keeps the given share of its squared weights, rounded up to the target's channel multiple. Batch norms do not change; the
    exporter folds them into the last factor.
    """

    name = "low-rank"
    version = 1
    reads = frozenset({"target.channel_multiple.float32"})
    summary = (
        "Factorises layers at the rank that keeps a share of their squared weights"
        " (Jaderberg et al. 2014; Zhang et al. 2015; Kim et al. 2016)."
    )
    parameters: ClassVar[Parameters] = (
        Choice(name="kind", help="k x k to k x 1 and 1 x k; to k x k and 1 x 1; to 1 x 1, k x k and 1 x 1", choices=KINDS),
        Number(
            name="energy",
            cheaper="low",
            help="share of the squared weights of each layer that its factors keep",
            low=0.5,
            high=0.95,
            step=0.05,
            default=0.8,
            bounds=(0.05, 1.0),
        ),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        from orchestrator_morphology.factors import cheaper_ranks, kind_of, spectra
        from orchestrator_morphology.layers import replaceable_layers

        calls, energy = replaceable_layers(model, context), number(parameters, "energy")
        layers = {name: model.get_submodule(name) for name in calls}
        multiple = context.target.channel_multiple("float32")
        highest: dict[str, float] = {}
        for kind in KINDS:
            values = {name: spectra(layer, kind) for name, layer in layers.items()}
            if kind != "channel" and not any(values[n] and kind_of(layers[n], kind) == kind for n in layers):
                continue  # equal to "channel" on this network
            for share in map(float, energy.values()):
                if any(cheaper_ranks(layers[n], call, kind, share, multiple, values[n]) for n, call in calls.items()):
                    highest[kind] = share
        if not highest:
            raise Refused(f"no layer of this network gets cheaper by factors that keep {energy.low:.0%} of its squared weights")
        return narrowed(parameters, kind={"choices": tuple(highest)}, energy={"high": min(highest.values())})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"layers factorised, keeping {percent(parameters['energy'])} of their squared weights"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator_morphology.factors import cheaper_ranks, factorised
        from orchestrator_morphology.layers import replace_layer, replaceable_layers, shapes

        kind, energy = str(parameters["kind"]), float(parameters["energy"])
        expected, multiple, count = shapes(model, context), context.target.channel_multiple("float32"), 0
        for name, call in replaceable_layers(model, context).items():
            layer = model.get_submodule(name)
            ranks = cheaper_ranks(layer, call, kind, energy, multiple)
            if ranks:
                count += replace_layer(model, name, factorised(layer, kind, ranks), context, expected)
        if not count:
            raise MethodError(f"{self.name}: no layer gets cheaper by {kind} factors at energy={energy}; choose a lower one")
        return model
