"""Smaller convolution kernels, cut out of the middle of large ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.plugin import BuildContext, Choice, MethodError, Parameter, ParameterValue, Refused, TorchMethod, narrowed

if TYPE_CHECKING:
    from torch import nn


class KernelShrink(TorchMethod):
    """Crops odd kernels that are larger than a size to their centre, and lessens the padding by as much.

    Every output stays centred on the same inputs, so that shapes stay. Dilated convolutions keep their kernels (they were made
    for their reach), and so do those whose padding is too small to be lessened. No learnt kernel transform stands between the
    large kernel and its centre, as Once-for-All has one: recovery training takes its place.
    """

    name = "kernel-shrink"
    version = 1
    family = "morphology"
    reads = frozenset[str]()
    summary = "Crops large convolution kernels to their centre (elastic kernel sizes; Cai et al. 2020, Once-for-All)."
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Choice(name="size", help="width of the kernels that larger ones become", choices=(3, 5)),
    )
    before = frozenset({"pruning", "distillation", "graph", "quantization"})
    usual = False

    def offer(self, model: "nn.Module", parameters: tuple[Parameter, ...], context: BuildContext) -> tuple[Parameter, ...]:
        sizes = tuple(size for size in (3, 5) if _larger(model, size))
        if not sizes:
            raise Refused("this network has no convolution with a kernel larger than 3 that can be cropped")
        return narrowed(parameters, size={"choices": sizes})

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        return f"kernels cropped to {parameters['size']}x{parameters['size']}"

    def transform(self, model: "nn.Module", parameters: Mapping[str, ParameterValue], context: BuildContext) -> "nn.Module":
        from orchestrator.plugin.networks import run

        size = int(parameters["size"])
        shapes = [t.shape for t in run(model, context.forward, context.example)]
        layers = _larger(model, size)
        if not layers:
            raise MethodError(f"{self.name}: no kernel of this network is larger than size={size} and can be cropped")
        for layer in layers:
            crop(layer, size)
        if [t.shape for t in run(model, context.forward, context.example)] != shapes:
            raise MethodError(f"{self.name}: the outputs changed their shape; this network computes with its kernels' sizes")
        return model


def crop(layer: Any, size: int) -> None:
    """Cut a convolution's kernel down to at most `size` along each axis, in place, with the padding that keeps its shapes."""
    from torch import nn

    wanted = tuple(min(kernel, size) for kernel in layer.kernel_size)
    index = tuple(slice((k - w) // 2, (k - w) // 2 + w) for k, w in zip(layer.kernel_size, wanted, strict=True))
    weight = layer.weight
    layer.weight = nn.Parameter(weight.detach()[(..., *index)].contiguous(), requires_grad=weight.requires_grad)
    if not isinstance(layer.padding, str):
        layer.padding = tuple(p - (k - w) // 2 for p, k, w in zip(layer.padding, layer.kernel_size, wanted, strict=True))
        # What the other padding modes (reflect, circular) go by: (before, after) from the last axis on.
        layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in range(2)]
    elif layer.padding == "same":
        layer._reversed_padding_repeated_twice = [(w - 1) // 2 for w in reversed(wanted) for _ in range(2)]
    layer.kernel_size = wanted


def _larger(model: "nn.Module", size: int) -> list[Any]:
    """The convolutions whose kernels can be cropped to `size`."""
    from torch import nn

    from orchestrator_morphology.dataflow import is_product

    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [
        m
        for m in model.modules()
        if isinstance(m, nn.modules.conv._ConvNd) and is_product(m) and owners[id(m.weight)] == 1 and _croppable(m, size)
    ]


def _croppable(layer: Any, size: int) -> bool:
    large = [(k, d, i) for i, (k, d) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)) if k > size]
    if not large or any(k % 2 == 0 or d > 1 for k, d, _ in large):
        return False
    if layer.padding == "valid":
        return False
    return layer.padding == "same" or all(layer.padding[i] >= (k - size) // 2 for k, _, i in large)
