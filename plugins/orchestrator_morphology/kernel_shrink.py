"""Smaller convolution kernels, cropped from the centre of large ones."""

from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import BuildContext, Choice, MethodError, Parameters, ParameterValues, Refused, narrowed
from orchestrator_morphology.base import MorphologyMethod

if TYPE_CHECKING:
    from torch import nn


class KernelShrink(MorphologyMethod):
    """Crops odd kernels that are larger than a size to their centre, and reduces the padding accordingly (Cai et al. 2020).

    Every output stays centred on the same inputs, so that shapes do not change. Dilated convolutions keep their kernels, and so
    do those with too little padding. The kernel is not transformed as in Once-for-All; recovery training compensates for that.
    """

    name = "kernel-shrink"
    version = 1
    reads = frozenset[str]()
    summary = "Crops large convolution kernels to their centre (elastic kernel sizes; Cai et al. 2020, Once-for-All)."
    parameters: ClassVar[Parameters] = (Choice(name="size", help="new width of larger kernels", choices=(3, 5)),)

    def offer(self, model: "nn.Module", parameters: Parameters, context: BuildContext) -> Parameters:
        """Return the search ranges for this network."""
        sizes = tuple(size for size in (3, 5) if _croppable(model, size))
        if not sizes:
            raise Refused("this network has no convolution with a kernel larger than 3 that can be cropped")
        return narrowed(parameters, size={"choices": sizes})

    def phrase(self, parameters: ParameterValues) -> str:
        """Describe a step with these parameters."""
        return f"kernels cropped to {parameters['size']}x{parameters['size']}"

    def transform(self, model: "nn.Module", parameters: ParameterValues, context: BuildContext) -> "nn.Module":
        """Return the changed network."""
        from orchestrator_morphology.layers import shapes

        size, expected = int(parameters["size"]), shapes(model, context)
        layers = _croppable(model, size)
        if not layers:
            raise MethodError(f"{self.name}: no kernel of this network is larger than size={size} and can be cropped")
        for layer in layers:
            crop(layer, size)
        if shapes(model, context) != expected:
            raise MethodError(f"{self.name}: with size={size} the outputs have another shape; this network reads kernel sizes")
        return model


def crop(layer: Any, size: int) -> None:
    """Crop a convolution's kernel to at most `size` along each axis, in place, with the padding that keeps its shapes."""
    from torch import nn

    cropped = tuple(min(kernel, size) for kernel in layer.kernel_size)
    index = tuple(slice((k - c) // 2, (k - c) // 2 + c) for k, c in zip(layer.kernel_size, cropped, strict=True))
    weight = layer.weight
    layer.weight = nn.Parameter(weight.detach()[(..., *index)].contiguous(), requires_grad=weight.requires_grad)
    if not isinstance(layer.padding, str):
        layer.padding = tuple(p - (k - c) // 2 for p, k, c in zip(layer.padding, layer.kernel_size, cropped, strict=True))
        # Read by the other padding modes (reflect, circular): (before, after) from the last axis on.
        layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in range(2)]
    elif layer.padding == "same":
        layer._reversed_padding_repeated_twice = [(c - 1) // 2 for c in reversed(cropped) for _ in range(2)]
    layer.kernel_size = cropped


def _croppable(model: "nn.Module", size: int) -> list[Any]:
    """Return the convolutions whose kernels can be cropped to `size`."""
    from orchestrator.plugin.networks import CONVOLUTION
    from orchestrator_morphology.layers import plain_layers

    layers = [model.get_submodule(name) for name in plain_layers(model)]
    return [layer for layer in layers if isinstance(layer, CONVOLUTION) and _can_crop(layer, size)]


def _can_crop(layer: Any, size: int) -> bool:
    large = [(k, d, i) for i, (k, d) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)) if k > size]
    if not large or any(k % 2 == 0 or d > 1 for k, d, _ in large) or layer.padding == "valid":
        return False
    return layer.padding == "same" or all(layer.padding[i] >= (k - size) // 2 for k, _, i in large)
