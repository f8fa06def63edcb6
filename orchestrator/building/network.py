"""Calling convention of this task's networks: named inputs in, a flat list of output tensors out."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.errors import InputError

Inputs = Mapping[str, Tensor]


def input_names(model: nn.Module) -> tuple[list[str], list[str] | None]:
    """Return the names of forward's required arguments, and of all its arguments; None: any name is accepted."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in named if p.default is inspect.Parameter.empty]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return required, None if anything else [p.name for p in named]


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """Call the network: a single input by position (its name may be anything), several by name."""
    if len(inputs) == 1:
        return model(next(iter(inputs.values())))
    return model(**inputs)


def tensors(outputs: Any) -> dict[str, Tensor]:
    """Return the floating-point and integer tensors of a network's output by name, in order.

    Raises:
        InputError: it returned anything but tensors, or tuples, lists and mappings of tensors.
    """
    if isinstance(outputs, Tensor):
        return {"output": outputs}
    if isinstance(outputs, Mapping):
        items = [(str(key), value) for key, value in outputs.items() if value is not None]
    elif isinstance(outputs, tuple | list):
        items = [(f"output{k}", value) for k, value in enumerate(outputs) if value is not None]
    else:
        raise InputError(f"the model returned a {type(outputs).__name__}; it must return tensors")
    found: dict[str, Tensor] = {}
    for name, value in items:
        for inner, tensor in tensors(value).items():
            found[name if isinstance(value, Tensor) else f"{name}.{inner}"] = tensor
    if not found:
        raise InputError("the model returned no tensor")
    return found


def as_tensors(arrays: Mapping[str, np.ndarray], device: "torch.device | str" = "cpu") -> dict[str, Tensor]:
    """Arrays as tensors of their own dtype."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in arrays.items()}


class FlatOutputs(nn.Module):
    """A network whose outputs are a flat tuple: what is exported, whatever structure the user's forward returns."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Return the output tensors in order."""
        inputs = dict(zip(self.names, arrays, strict=True))
        return tuple(tensors(forward(self.model, inputs)).values())
