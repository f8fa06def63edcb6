"""Finds the Pareto-optimal compressed model for a device.

    import orchestrator

    run = orchestrator.search(target="raspberry-pi", model="model.py:network", data="data.py:splits", max_drop=0.01)
    print(run.recommended, run.reason)

Importing this package loads no framework: the functions below are fetched when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import build, evaluate, load_run, resume, search

__all__ = ["build", "evaluate", "load_run", "resume", "search"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("orchestrator.api"), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
