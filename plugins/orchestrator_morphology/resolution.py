"""Smaller images: what a convolutional network costs goes with their area."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from orchestrator.plugin import (
    BuildContext,
    Choice,
    MethodError,
    Parameter,
    ParameterValue,
    Refused,
    TorchMethod,
    narrowed,
    percent,
)

if TYPE_CHECKING:
    from torch import nn

SCALES = (0.75, 0.5, 0.875)


class Resolution(TorchMethod):
    """Puts a resize of the image inputs in front of a network that serves several sizes (one with global pooling).

    The inputs keep their shape, and what feeds the network needs no change. Whether another size is served is tried: the outputs
    must keep their shapes, and the layers must get cheaper.
    """

    name = "resolution"
    version = 1
    family = "morphology"
    reads = frozenset[str]()
    summary = "Shrinks image inputs in front of the network (Howard et al. 2017, resolution multiplier; Tan and Le 2019)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="scale", cheaper="low", help="share of the height and width that the network gets to see", choices=SCALES),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        import copy

        scales, reason = [], ""
        for scale in SCALES:
            try:
                _resized(copy.deepcopy(model), scale, context)
                scales.append(scale)
            except MethodError as error:
                reason = str(error)
        if not scales:
            raise Refused(reason)
        return narrowed(parameters, scale={"choices": tuple(scales)})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"images shrunk to {percent(parameters['scale'])} of their height and width"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        return _resized(model, float(parameters["scale"]), context)


def _resized(model: "nn.Module", scale: float, context: BuildContext) -> "nn.Module":
    """The network behind a resize, tried.

    Raises:
        MethodError: it takes no images, or none of this size.
    """
    from orchestrator.plugin.networks import macs
    from orchestrator_morphology.layers import shapes
    from orchestrator_morphology.resized import resize

    images = [t for t in context.example.values() if t.ndim == 4 and t.is_floating_point()]
    if not images:
        raise MethodError("resolution: this network has no image input (4-D, floating point)")
    expected, before = shapes(model, context), sum(macs(model, context.forward, context.example).values())
    sizes = {(h, w): (max(1, round(h * scale)), max(1, round(w * scale))) for h, w in {tuple(i.shape[2:]) for i in images}}
    resize(model, sizes)
    try:
        found = shapes(model, context)
        after = sum(macs(model, context.forward, context.example).values())
    except Exception as error:  # the network's own forward on a size it was not made for
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(f"resolution: this network takes no images of scale={scale}: {reason:.160}") from error
    if found != expected:
        raise MethodError(f"resolution: with images of scale={scale} the outputs change their shape")
    if after >= before:
        raise MethodError(f"resolution: images of scale={scale} make this network no cheaper")
    return model
