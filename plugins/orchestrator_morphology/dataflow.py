"""What a network computes with what: every call of one forward pass, and which tensors went from one to the next.

The calls are recorded while the network runs on real inputs (torch's function mode for functions and tensor methods, hooks for
layers), not traced symbolically as torch.fx does: branches on shapes, keyword arguments, dictionaries and calls by the user's
`forward` are all served, and a network that runs can be recorded. Loads torch: imported lazily.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import PRODUCTS, Forward, Inputs, tensors

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

Value = tuple[int, int]
"""A tensor as it was at one moment: its identity, and how often it had been changed in place."""

QUESTIONS = frozenset(
    {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_contiguous", "__len__", "ndimension"}
)
"""Functions that ask a tensor for its shape or kind, not for what is in it."""

_PLAIN_FORWARDS = frozenset(layer.forward for layer in PRODUCTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a layer or a function.

    Attributes:
        layer: The layer's name in the network; None for a function.
        function: The function's name; "" for a layer.
        args, kwargs: What it was given; tensors are as they were left.
        inputs: The tensors among them, in order.
        given, made: The first tensor that went in and the first that came out; None where there was none.
        outputs: What came out.
    """

    layer: str | None
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Value, ...]
    given: Tensor | None
    made: Tensor | None
    outputs: tuple[Value, ...]


@dataclass(kw_only=True, slots=True)
class Dataflow:
    """The calls of one forward pass in their order; the tensors are held, so that their identities stay theirs."""

    calls: list[Call] = field(default_factory=list)
    ends: frozenset[Value] = frozenset()

    def readers(self, value: Value) -> list[Call]:
        """The calls that a tensor went into."""
        return [call for call in self.calls if value in call.inputs]

    def maker(self, value: Value) -> Call | None:
        """The call that a tensor came out of; None: an input, a parameter, or a tensor changed behind a view."""
        return next((call for call in self.calls if value in call.outputs), None)

    def of(self, layer: str) -> list[Call]:
        """All calls of a layer."""
        return [call for call in self.calls if call.layer == layer]


class _Recorder(TorchFunctionMode):
    """Writes down functions; `depth` is above zero inside a layer, whose functions are its own affair."""

    def __init__(self, flow: Dataflow) -> None:
        super().__init__()
        self.flow, self.depth = flow, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return function(*args, **kwargs)
        given = tensors([args, kwargs])
        inputs = tuple(map(_value, given))
        result = function(*args, **kwargs)
        name, made = str(getattr(function, "__name__", "")), tensors(result)
        if given and (made or name not in QUESTIONS):
            self.write(None, name, args, kwargs, inputs, given, made)
        return result

    def write(
        self,
        layer: str | None,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: tuple[Value, ...],
        given: list[Tensor],
        made: list[Tensor],
    ) -> None:
        outputs = tuple(map(_value, made))
        if outputs and all(value in inputs for value in outputs):
            return  # it handed on what it was given (a dropout in eval mode): whoever reads that reads the same tensor
        call = Call(
            layer=layer,
            function=function,
            args=args,
            kwargs=kwargs,
            inputs=inputs,
            given=given[0] if given else None,
            made=made[0] if made else None,
            outputs=outputs,
        )
        self.flow.calls.append(call)


def record(model: nn.Module, forward: Forward, inputs: Inputs) -> Dataflow:
    """Every call of one forward pass, without gradients; the network is left as it was.

    Raises:
        MethodError: the network does not run under observation, with its own reason.
    """
    flow = Dataflow()
    recorder = _Recorder(flow)
    entered: list[tuple[Value, ...]] = []
    handles = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append(tuple(map(_value, tensors([args, kwargs]))))
        recorder.depth += 1

    def leave(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            recorder.depth -= 1
            values = entered.pop()
            if not recorder.depth:
                recorder.write(name, "", args, kwargs, values, tensors([args, kwargs]), tensors(output))

        return hook

    try:
        for name, module in model.named_modules():
            if name and is_leaf(module):
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave(name), with_kwargs=True))
        with torch.no_grad(), recorder:
            outputs = tensors(forward(model, inputs))
        flow.ends = frozenset(map(_value, outputs))
    except Exception as error:  # whatever a user's network raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(f"what goes where in this network cannot be recorded: {reason:.200}") from error
    finally:
        for handle in handles:
            handle.remove()
    return flow


def recorded(model: nn.Module, context: "BuildContext") -> Dataflow:
    """`record` on the task's example."""
    return record(model, context.forward, context.example)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one of torch's own without inner ones: a layer."""
    own = getattr(type(module).forward, "__module__", "") or ""
    return own.startswith("torch.nn") and not any(True for _ in module.children())


def is_product(module: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer that computes as torch's own does."""
    return isinstance(module, PRODUCTS) and type(module).forward in _PLAIN_FORWARDS and not parametrize.is_parametrized(module)


def private_layers(model: nn.Module, flow: Dataflow) -> dict[str, Call]:
    """The layers that a change may touch: called once, their parameters shared with no one and read by nothing else."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    read = {value[0] for call in flow.calls if call.layer is None for value in call.inputs}
    found: dict[str, Call] = {}
    for call in flow.calls:
        if call.layer is None:
            continue
        mine = [id(p) for p in model.get_submodule(call.layer).parameters(recurse=False)]
        if len(flow.of(call.layer)) == 1 and not any(owners[p] > 1 or p in read for p in mine):
            found[call.layer] = call
    return found


def _value(tensor: Tensor) -> Value:
    return id(tensor), tensor._version
