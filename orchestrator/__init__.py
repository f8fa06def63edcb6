"""Finds the Pareto-optimal compressed model for a device.

    import orchestrator

    run = orchestrator.search(target="raspberry-pi", model="model.py:network", data="data.py:splits", max_drop=0.01)
    print(run.recommended, run.reason)
    print(orchestrator.compare("model.onnx", "runs/.../recommended/model.onnx").reason)

Importing this package loads no framework: the functions below are fetched when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import build, evaluate, load_run, resume, search
    from orchestrator.measurements import compare, measure

__all__ = ["build", "compare", "evaluate", "load_run", "measure", "resume", "search"]

_MEASUREMENTS = ("compare", "measure")


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "orchestrator.measurements" if name in _MEASUREMENTS else "orchestrator.api"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
