"""Smaller images in front of a network."""

import copy
from typing import TYPE_CHECKING, ClassVar

from orchestrator.errors import one_line
from orchestrator.plugin import BuildContext, Choice, MethodError, Parameters, ParameterValues, Refused, narrowed, percent
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn

SCALES = (0.75, 0.5, 0.875)


class Resolution(MorphologyMethod):
    """Resizes the image inputs of a network that takes several sizes, for example by global pooling (Howard et al. 2017).

    The inputs of the exported model keep their shape. Each scale is tried: the outputs must keep their shapes, and the network
    must get cheaper.
    """

    name = "resolution"
    version = 1
    reads = frozenset[str]()
    summary = "Shrinks image inputs in front of the network (Howard et al. 2017, resolution multiplier; Tan and Le 2019)."
    parameters: ClassVar[Parameters] = (
        Choice(name="scale", cheaper="low", help="share of the height and width that the network gets", choices=SCALES),
    )

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
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

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"images shrunk to {percent(parameters['scale'])} of their height and width"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        return _resized(model, float(parameters["scale"]), context)


def _resized(model: "nn.Module", scale: float, context: BuildContext) -> "nn.Module":
    """Return the network behind a resize of its images.

    Raises:
        MethodError: The network has no image input, or does not run on images of this size.
    """
    from orchestrator.plugin.networks import macs
    from orchestrator_morphology.image_resize import ImageResize
    from orchestrator_morphology.layers import shapes

    images = [t for t in context.example.values() if t.ndim == 4 and t.is_floating_point()]
    if not images:
        raise MethodError("resolution: this network has no image input (4-D, floating point)")
    expected, before = shapes(model, context), sum(macs(model, context.forward, context.example).values())
    sizes = {(h, w): (max(1, round(h * scale)), max(1, round(w * scale))) for h, w in {tuple(i.shape[2:]) for i in images}}
    model.register_forward_pre_hook(ImageResize(sizes), with_kwargs=True)
    try:
        changed = shapes(model, context)
        after = sum(macs(model, context.forward, context.example).values())
    except Exception as error:  # the network's own forward on another size
        raise MethodError(f"resolution: this network takes no images of scale={scale}: {one_line(error)}") from error
    if changed != expected:
        raise MethodError(f"resolution: with images of scale={scale} the outputs change their shape")
    if after >= before:
        raise MethodError(f"resolution: images of scale={scale} make this network no cheaper")
    return model
