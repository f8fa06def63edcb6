"""Finding and replacing activation functions, whichever way a network calls them. Loads torch: imported lazily."""

import warnings
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.nn import functional

from orchestrator.plugin import MethodError
from orchestrator.plugin.networks import run, same
from orchestrator_morphology.dataflow import recorded

if TYPE_CHECKING:
    from orchestrator.plugin import BuildContext

LAYERS = (nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU, nn.SELU, nn.CELU, nn.Mish)
NAMES = frozenset({"silu", "gelu", "hardswish", "elu", "selu", "celu", "mish"})
"""The functions by which those are called: `torch.nn.functional.silu`, ..."""

NEW: dict[str, tuple[type[nn.Module], Any]] = {
    "relu": (nn.ReLU, functional.relu),
    "hardswish": (nn.Hardswish, functional.hardswish),
}


def replace(model: nn.Module, to: str, context: "BuildContext") -> tuple[nn.Module, int]:
    """Replace every activation of the known kinds.

    Args:
        model: Changed in place; but the result is another module where functions had to be replaced in a traced graph.
        to: "relu" or "hardswish".

    Returns:
        The network, and how many activations were replaced: layers, attributes and calls.

    Raises:
        MethodError: functions are called in a `forward` that torch.fx cannot trace.
    """
    layer, function = NEW[to]
    count = 0
    for module in list(model.modules()):
        for place, inner in module._modules.items():
            if isinstance(inner, LAYERS) and not isinstance(inner, layer):
                module._modules[place] = layer().train(inner.training)
                count += 1
        for key, value in list(vars(module).items()):
            if _is_activation(value) and value is not function:
                setattr(module, key, function)
                if hasattr(module, "activation_relu_or_gelu"):  # the fused kernel of nn.TransformerEncoderLayer asks for it
                    vars(module)["activation_relu_or_gelu"] = 1 if to == "relu" else 0
                count += 1
    called = _called(model, to, context)
    return (_traced(model, to, context, called), count + len(called)) if called else (model, count)


def _is_activation(value: Any) -> bool:
    return any(value is getattr(functional, name) for name in NAMES)


def _called(model: nn.Module, to: str, context: "BuildContext") -> list[str]:
    """The names of the functions that are still called, in the order of the network."""
    wanted = NAMES - {to}
    return [call.function for call in recorded(model, context).calls if call.layer is None and call.function in wanted]


def _traced(model: nn.Module, to: str, context: "BuildContext", called: list[str]) -> nn.Module:
    """The network as torch.fx traces it, with those calls replaced."""
    found = ", ".join(sorted(set(called)))
    before = run(model, context.forward, context.example)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = fx.symbolic_trace(model)
        alike = same(before, run(traced, context.forward, context.example))
    except Exception as error:  # whatever tracing a user's forward raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MethodError(
            f"{found} is called as a function in a forward that torch.fx cannot trace ({reason:.120});"
            " make it a layer (nn.SiLU, nn.GELU, ...) to have it replaced"
        ) from error
    if not alike:
        raise MethodError(f"{found} is called as a function in a forward that torch.fx traces to another result")
    for node in traced.graph.nodes:
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else node.target
        if node.op in ("call_function", "call_method") and name in NAMES - {to}:
            node.op, node.target = "call_function", NEW[to][1]
            node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"],), {}
    traced.recompile()
    if _called(traced, to, context):
        raise MethodError(f"{found} is called where torch.fx does not look into: inside another module's own function")
    return traced.train(model.training)
