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
    from orchestrator.api import build, compare_runs, evaluate, load_run, resume, search
    from orchestrator.calibration import calibrate
    from orchestrator.checking import check
    from orchestrator.diagnosis import diagnose
    from orchestrator.estimates import estimate
    from orchestrator.measurements import compare, measure
    from orchestrator.targets import resume_targets, search_targets
    from orchestrator.working import work

__all__ = [
    "build",
    "calibrate",
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
    "calibrate": "calibration",
    "check": "checking",
    "compare": "measurements",
    "diagnose": "diagnosis",
    "estimate": "estimates",
    "measure": "measurements",
    "resume_targets": "targets",
    "search_targets": "targets",
    "work": "working",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"orchestrator.{_MODULES.get(name, 'api')}"), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
