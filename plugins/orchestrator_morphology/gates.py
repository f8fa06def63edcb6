"""Squeeze-and-excitation (Hu et al. 2018): channels that are multiplied by what a small network makes of their means.

Loads torch: imported lazily.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from orchestrator_morphology.dataflow import Call, Dataflow, Value, is_product
from orchestrator_morphology.passing import passes

PRODUCT = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
RESHAPES = frozenset({"view", "reshape", "unsqueeze", "flatten", "squeeze", "expand_as", "__getitem__"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A side path from channels to one factor for each of them.

    Attributes:
        reader: The dense layer that reads the channels' means.
        maker: The dense layer that makes the factors.
    """

    reader: str
    maker: str


def gate_of(
    model: nn.Module, flow: Dataflow, value: Value, channels: int, private: Mapping[str, Call]
) -> tuple[Gate, Call] | None:
    """The gate that one of a tensor's two readers begins, and the call that multiplies by it; None where there is no such.

    Args:
        value: A tensor with the channels along axis 1.
        channels: How many.
        private: The layers that may be changed.
    """
    readers = flow.readers(value)
    product = next((c for c in readers if c.layer is None and c.function in PRODUCT and len(c.inputs) == 2), None)
    if product is None or product.made is None or product.given is None:
        return None
    call = next(c for c in readers if c is not product)
    dense: list[str] = []
    while True:
        layer: Any = model.get_submodule(call.layer) if call.layer is not None else None
        if len(call.inputs) != 1 or len(call.outputs) != 1:
            return None
        if layer is not None and is_product(layer):
            if len(dense) == 2 or call.layer not in private or not _fits(layer, channels, last=bool(dense)):
                return None
            dense.append(str(call.layer))
        elif not passes(layer, call, 1) and not _reshapes(layer, call):
            return None
        if call.outputs[0] in product.inputs:
            whole = len(dense) == 2 and product.made.shape[1] == channels
            return (Gate(reader=dense[0], maker=dense[1]), product) if whole else None
        following = flow.readers(call.outputs[0])
        if len(following) != 1 or call.outputs[0] in flow.ends:
            return None
        call = following[0]


def _fits(layer: Any, channels: int, last: bool) -> bool:
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return False
    return bool((layer.weight.shape[0] if last else layer.weight.shape[1]) == channels)


def _reshapes(layer: nn.Module | None, call: Call) -> bool:
    """Whether a call only adds or takes away axes of length one behind the first two."""
    if call.given is None or call.made is None or not (isinstance(layer, nn.Flatten) or call.function in RESHAPES):
        return False
    return call.given.shape[:2] == call.made.shape[:2] and call.given.numel() == call.made.numel()
