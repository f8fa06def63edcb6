"""Resize of the image inputs of a network. Imports torch; imported on use."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int]


class ImageResize:
    """Forward pre-hook that makes images smaller; the network keeps its class, signature and parameter names.

    Args:
        sizes: The new (height, width) for each (height, width) of an image input.
    """

    def __init__(self, sizes: Mapping[Size, Size]) -> None:
        self.sizes = dict(sizes)

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the inputs with images resized."""
        return tuple(map(self._resize, args)), {name: self._resize(value) for name, value in kwargs.items()}

    def _resize(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
            return value
        height, width = int(value.shape[2]), int(value.shape[3])
        size = self.sizes.get((height, width))
        if size is None:
            return value
        if height % size[0] == 0 and width % size[1] == 0:  # an integer factor: averaging loses least
            return functional.avg_pool2d(value, (height // size[0], width // size[1]))
        return functional.interpolate(value, size=size, mode="bilinear", align_corners=False)
