"""A resize of the images that a network is given. Loads torch: imported lazily."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class Resize:
    """A forward pre-hook that makes images smaller: the network keeps its class, its signature and its parameters' names.

    Args:
        sizes: For each (height, width) of an image input the one that the network gets.
    """

    def __init__(self, sizes: Mapping[tuple[int, int], tuple[int, int]]) -> None:
        self.sizes = dict(sizes)

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs, images resized, all others as they are."""
        return tuple(map(self._resized, inputs)), {name: self._resized(value) for name, value in named.items()}

    def _resized(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
            return value
        size = self.sizes.get((int(value.shape[2]), int(value.shape[3])))
        if size is None:
            return value
        if value.shape[2] % size[0] == 0 and value.shape[3] % size[1] == 0:  # half the size: averaging loses least
            return functional.avg_pool2d(value, (value.shape[2] // size[0], value.shape[3] // size[1]))
        return functional.interpolate(value, size=size, mode="bilinear", align_corners=False)


def resize(model: nn.Module, sizes: Mapping[tuple[int, int], tuple[int, int]]) -> None:
    """Put the resize in front of a network, in place."""
    model.register_forward_pre_hook(Resize(sizes), with_kwargs=True)
