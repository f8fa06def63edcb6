"""A network behind a resize of its images. Loads torch: imported lazily."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class Resized(nn.Module):
    """Calls a network with smaller images.

    Args:
        model: The network.
        sizes: For each (height, width) of an image input the one that the network gets.
    """

    def __init__(self, model: nn.Module, sizes: Mapping[tuple[int, int], tuple[int, int]]) -> None:
        super().__init__()
        self.model, self.sizes = model, dict(sizes)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the network answers to the resized images and the other inputs as they are."""
        return self.model(*map(self._resize, inputs), **{name: self._resize(value) for name, value in named.items()})

    def _resize(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
            return value
        size = self.sizes.get((int(value.shape[2]), int(value.shape[3])))
        if size is None:
            return value
        whole = value.shape[2] % size[0] == 0 and value.shape[3] % size[1] == 0
        if whole:  # half the size: averaging loses least
            return functional.avg_pool2d(value, (value.shape[2] // size[0], value.shape[3] // size[1]))
        return functional.interpolate(value, size=size, mode="bilinear", align_corners=False)
