"""Replacement of activation functions in layers, attributes and calls. Imports torch; imported on use."""

import warnings
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from orchestrator.errors import one_line
from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import run, same

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

LAYERS = (nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU, nn.SELU, nn.CELU, nn.Mish)
NAMES = frozenset({"silu", "gelu", "hardswish", "elu", "selu", "celu", "mish"})
"""Names of their functions in `torch.nn.functional`."""

NEW: dict[str, tuple[type[nn.Module], Any]] = {
    "relu": (nn.ReLU, functional.relu),
    "hardswish": (nn.Hardswish, functional.hardswish),
}


def replace_activations(model: nn.Module, to: str, context: "BuildContext") -> tuple[nn.Module, int]:
    """Replace every smooth activation.

    Args:
        model: Changed in place, or replaced by a traced network if its `forward` calls activation functions.
        to: "relu" or "hardswish".
        context: Context of the build.

    Returns:
        The network, and the number of replaced activations: layers, attributes and calls.

    Raises:
        MethodError: A `forward` that torch.fx cannot trace calls an activation function.
    """
    layer, function = NEW[to]
    count = 0
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if isinstance(child, LAYERS) and not isinstance(child, layer):
                module._modules[name] = layer().train(child.training)
                count += 1
        for key, value in list(vars(module).items()):
            if any(value is getattr(functional, name) for name in NAMES) and value is not function:
                setattr(module, key, function)
                if hasattr(module, "activation_relu_or_gelu"):  # read by the fused kernel of nn.TransformerEncoderLayer
                    vars(module)["activation_relu_or_gelu"] = 1 if to == "relu" else 0
                count += 1
    called = _called(model, to, context)
    return (_replace_calls(model, to, context, called), count + len(called)) if called else (model, count)


class _CallRecorder(TorchFunctionMode):
    """Records the names of the functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(getattr(function, "__name__", "")))
        return function(*args, **(kwargs or {}))


def _called(model: nn.Module, to: str, context: "BuildContext") -> list[str]:
    """Return the names of the activation functions that are still called, in the order of the calls."""
    with _CallRecorder() as recorder:
        run(model, context.forward, context.example)
    return [name for name in recorder.names if name in NAMES - {to}]


def _replace_calls(model: nn.Module, to: str, context: "BuildContext", called: list[str]) -> nn.Module:
    """Return the network as traced by torch.fx, with these calls replaced."""
    names = ", ".join(sorted(set(called)))
    before = run(model, context.forward, context.example)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = fx.symbolic_trace(model)
        equal = same(before, run(traced, context.forward, context.example))
    except Exception as error:  # anything that tracing a user's forward raises
        raise MethodError(
            f"{names} is called as a function in a forward that torch.fx cannot trace ({one_line(error)});"
            " make it a layer (nn.SiLU, nn.GELU, ...)"
        ) from error
    if not equal:
        raise MethodError(f"{names} is called as a function in a forward whose torch.fx trace computes another result")
    for node in traced.graph.nodes:
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else node.target
        if node.op in ("call_function", "call_method") and name in NAMES - {to}:
            node.op, node.target = "call_function", NEW[to][1]
            node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"],), {}
    traced.recompile()
    if _called(traced, to, context):
        raise MethodError(f"{names} is called inside a function that torch.fx does not trace; make it a layer")
    return traced.train(model.training)
