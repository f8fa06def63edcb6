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
    from orchestrator.api.characterize import characterize
    from orchestrator.api.check import check
    from orchestrator.api.estimate import estimate
    from orchestrator.api.measure import compare, measure
    from orchestrator.api.search import build, compare_runs, evaluate, load_run, resume, search
    from orchestrator.api.search_targets import resume_targets, search_targets
    from orchestrator.api.worker import work
    from orchestrator.diagnosis import diagnose

__all__ = [
    "build",
    "characterize",
    "check",
    "compare",
    "compare_runs",
    "diagnose",
    "estimate",
    "evaluate",
    "load_run",
    "measure",
    "resume",
    "resume_targets",
    "search",
    "search_targets",
    "work",
]

_MODULES = {
    "build": "api.search",
    "characterize": "api.characterize",
    "check": "api.check",
    "compare": "api.measure",
    "compare_runs": "api.search",
    "diagnose": "diagnosis",
    "estimate": "api.estimate",
    "evaluate": "api.search",
    "load_run": "api.search",
    "measure": "api.measure",
    "resume": "api.search",
    "resume_targets": "api.search_targets",
    "search": "api.search",
    "search_targets": "api.search_targets",
    "work": "api.worker",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"orchestrator.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
