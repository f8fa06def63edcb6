"""Which calls take each channel on its own and leave them in their order. Loads torch: imported lazily."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from orchestrator_morphology.dataflow import Call

# What takes each channel on its own and keeps their order, whatever the number of channels.
ELEMENTWISE_LAYERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity),
)
ELEMENTWISE_FUNCTIONS = frozenset(
    {
        *("relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"),
        *("hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "dropout", "dropout1d", "dropout2d"),
        *("dropout3d", "clamp", "contiguous", "clone"),
    }
)
SPATIAL_LAYERS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d, nn.Upsample),
)
SPATIAL_FUNCTIONS = frozenset(
    {
        *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate"),
    }
)
RESHAPES = frozenset({"flatten", "view", "reshape"})


def passes(layer: nn.Module | None, call: Call, axis: int) -> bool:
    """Whether a call takes each channel on its own and leaves them where they are."""
    if layer is not None:
        shared = isinstance(layer, nn.PReLU) and layer.num_parameters == 1
        return shared or isinstance(layer, ELEMENTWISE_LAYERS) or (axis == 1 and isinstance(layer, SPATIAL_LAYERS))
    if call.function in ELEMENTWISE_FUNCTIONS:
        return True
    if axis != 1 or call.given is None or call.given.ndim < 3:
        return False
    if call.function == "pad":
        around = call.kwargs.get("pad", call.args[1] if len(call.args) > 1 else ())
        return isinstance(around, list | tuple) and len(around) // 2 <= call.given.ndim - 2
    if call.function == "mean":
        axes = _axes(call)
        return bool(axes) and all(isinstance(a, int) and a % call.given.ndim >= 2 for a in axes)
    return call.function in SPATIAL_FUNCTIONS


def _axes(call: Call) -> Sequence[Any]:
    axes = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else ())
    return axes if isinstance(axes, list | tuple) else (axes,)


def flattened(layer: nn.Module | None, call: Call, channels: int, axis: int) -> int:
    """Elements of each channel where a call flattens all axes but the first into one; 0 where it does not."""
    given, made = call.given, call.made
    if given is None or made is None or axis != 1 or made.ndim != 2 or not given.ndim > 2:
        return 0
    if not (isinstance(layer, nn.Flatten) or (layer is None and call.function in RESHAPES)):
        return 0
    return int(made.shape[1]) // channels if made.shape[0] == given.shape[0] else 0
