"""Find the Pareto-optimal compressed model for a device.

    import orchestrator

    run = orchestrator.search(target="raspberry-pi", model="model.py:network", data="data.py:splits", max_drop=0.01)
    print(run.recommended, run.reason)
    print(orchestrator.compare("model.onnx", "runs/.../recommended/model.onnx").reason)

Importing this package loads no framework: names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api.characterize import CharacterizeOptions, characterize
    from orchestrator.api.check import check
    from orchestrator.api.check.settings import CheckOptions
    from orchestrator.api.estimate import estimate
    from orchestrator.api.measure import MeasureOptions, compare, measure
    from orchestrator.api.search import build, compare_runs, evaluate, load_run, resume, search
    from orchestrator.api.search_targets import resume_targets, search_targets
    from orchestrator.api.worker import WorkerOptions, WorkerResult, run_worker
    from orchestrator.diagnosis import diagnose
    from orchestrator.diagnosis.result import Diagnosis
    from orchestrator.errors import (
        EnvironmentFailure,
        InputError,
        Interrupted,
        OrchestratorError,
        PluginError,
        ProfileError,
        RunInUseError,
    )
    from orchestrator.report.run_diff import RunComparison
    from orchestrator.values.characterization import CharacterizedMachine
    from orchestrator.values.check import CheckResult, Criterion
    from orchestrator.values.measure import Comparison, LatencyEstimate, ModelMeasurement
    from orchestrator.values.recipe import Recipe, Step
    from orchestrator.values.results import CandidateResult, RunResult
    from orchestrator.values.search import BudgetSpec, SearchOptions
    from orchestrator.values.target import Limits
    from orchestrator.values.task import TaskSpec

_NAMES = {
    "api.characterize": ("CharacterizeOptions", "characterize"),
    "api.check": ("check",),
    "api.check.settings": ("CheckOptions",),
    "api.estimate": ("estimate",),
    "api.measure": ("MeasureOptions", "compare", "measure"),
    "api.search": ("build", "compare_runs", "evaluate", "load_run", "resume", "search"),
    "api.search_targets": ("resume_targets", "search_targets"),
    "api.worker": ("WorkerOptions", "WorkerResult", "run_worker"),
    "diagnosis": ("diagnose",),
    "diagnosis.result": ("Diagnosis",),
    "errors": (
        "EnvironmentFailure",
        "InputError",
        "Interrupted",
        "OrchestratorError",
        "PluginError",
        "ProfileError",
        "RunInUseError",
    ),
    "report.run_diff": ("RunComparison",),
    "values.characterization": ("CharacterizedMachine",),
    "values.check": ("CheckResult", "Criterion"),
    "values.measure": ("Comparison", "LatencyEstimate", "ModelMeasurement"),
    "values.recipe": ("Recipe", "Step"),
    "values.results": ("CandidateResult", "RunResult"),
    "values.search": ("BudgetSpec", "SearchOptions"),
    "values.target": ("Limits",),
    "values.task": ("TaskSpec",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "BudgetSpec",
    "CandidateResult",
    "CharacterizeOptions",
    "CharacterizedMachine",
    "CheckOptions",
    "CheckResult",
    "Comparison",
    "Criterion",
    "Diagnosis",
    "EnvironmentFailure",
    "InputError",
    "Interrupted",
    "LatencyEstimate",
    "Limits",
    "MeasureOptions",
    "ModelMeasurement",
    "OrchestratorError",
    "PluginError",
    "ProfileError",
    "Recipe",
    "RunComparison",
    "RunInUseError",
    "RunResult",
    "SearchOptions",
    "Step",
    "TaskSpec",
    "WorkerOptions",
    "WorkerResult",
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
    "run_worker",
    "search",
    "search_targets",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"orchestrator.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
