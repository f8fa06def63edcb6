"""Low-rank layers: Jaderberg et al. 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions", and after."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Number,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
)

if TYPE_CHECKING:
    from torch import nn

KINDS = ("spatial", "channel", "tucker")


class LowRank(TorchMethod):
    """Replaces layers by products of smaller ones wherever that takes fewer multiply-accumulates.

    Of a k x k convolution, "spatial" makes k x 1 and 1 x k (Jaderberg et al. 2014), "channel" k x k to fewer channels and 1 x 1
    (Zhang et al. 2015), "tucker" 1 x 1, k x k between fewer channels, 1 x 1 (Kim et al. 2016). Linear layers and 1 x 1
    convolutions become two by a singular value decomposition in all three. The rank of each layer is the least that keeps the
    asked share of its squared weights, rounded up to the target's channel multiple. A batch norm behind a layer stays where it
    is; the exporter folds it into the last factor, so nothing is folded here.
    """

    name = "low-rank"
    version = 1
    family = "morphology"
    reads = frozenset({"target.channel_multiple.float32"})
    summary = (
        "Factorises layers at the rank that keeps a share of their squared weights"
        " (Jaderberg et al. 2014; Zhang et al. 2015; Kim et al. 2016)."
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
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
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        from orchestrator_morphology.factors import kind_of, macs, ranks, spectra
        from orchestrator_morphology.layers import products

        try:
            calls = products(model, context)
        except MethodError as error:
            raise Refused(str(error)) from error
        energy = next(p for p in parameters if isinstance(p, Number) and p.name == "energy")
        multiple = context.target.channel_multiple("float32")
        highest: dict[str, float] = {}
        for kind in KINDS:
            values = {name: spectra(model.get_submodule(name), kind) for name in calls}
            if kind != "channel" and not any(values[n] and kind_of(model.get_submodule(n), kind) == kind for n in calls):
                continue  # it would do what "channel" does
            for index in range(energy.count()):
                share = round(energy.low + index * energy.step, 6)
                for name, call in calls.items():
                    layer = model.get_submodule(name)
                    chosen = ranks(values[name], share, multiple) if values[name] else None
                    if chosen and macs(layer, call, kind, chosen) < macs(layer, call, kind):
                        highest[kind] = share
                        break
        if not highest:
            raise Refused(f"no layer of this network gets cheaper by factors that keep {energy.low:.0%} of its squared weights")
        changes = {"kind": {"choices": tuple(highest)}, "energy": {"high": min(highest.values())}}
        return narrowed(parameters, **changes)

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"layers factorised, keeping {percent(parameters['energy'])} of their squared weights"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator_morphology.factors import factorised, macs, ranks, spectra
        from orchestrator_morphology.layers import products, put, shapes

        kind, energy = str(parameters["kind"]), float(parameters["energy"])
        expected, multiple, done = shapes(model, context), context.target.channel_multiple("float32"), 0
        for name, call in products(model, context).items():
            layer = model.get_submodule(name)
            values = spectra(layer, kind)
            chosen = ranks(values, energy, multiple) if values else None
            if chosen and macs(layer, call, kind, chosen) < macs(layer, call, kind):
                done += put(model, name, factorised(layer, kind, chosen), context, expected)
        if not done:
            raise MethodError(f"{self.name}: no layer gets cheaper by {kind} factors at energy={energy}; choose a lower one")
        return model
