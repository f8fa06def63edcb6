"""Every hook, with its type and who answers. The entry-point group is `orchestrator`.

Contributions (no arguments, every answer collected) return a list of *instances* of the contract named. Questions: the first
answer that is not None wins, the plugin registered last is asked first. Checks and events: every plugin is asked.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from orchestrator.plugin.device import Device
from orchestrator.plugin.method import Method
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.task import TaskSource
from orchestrator.values.events import SearchStarted
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult, RunResult
from orchestrator.values.target import Target

if TYPE_CHECKING:
    import click

GROUP = "orchestrator"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def orchestrator_methods() -> list[Method]:  # type: ignore[empty-body]
    """Methods. The plugin that brings a name which another one has is left out, and naming it is an error that names both."""


@hookspec
def orchestrator_runtimes() -> list[Runtime]:  # type: ignore[empty-body]
    """Runtimes."""


@hookspec
def orchestrator_devices() -> list[Device]:  # type: ignore[empty-body]
    """Devices."""


@hookspec
def orchestrator_hardware_profiles() -> list[Path]:  # type: ignore[empty-body]
    """Paths of TOML files, one hardware profile each."""


@hookspec
def orchestrator_metrics() -> list[Metric]:  # type: ignore[empty-body]
    """Quality metrics."""


@hookspec
def orchestrator_tasks() -> list[TaskSource]:  # type: ignore[empty-body]
    """Ready-made tasks."""


@hookspec
def orchestrator_searches() -> list[Path]:  # type: ignore[empty-body]
    """Paths of TOML files, one ready-made search each."""


@hookspec
def orchestrator_samplers() -> dict[str, Any]:  # type: ignore[empty-body]
    """Samplers by name: `{name: factory(seed) -> optuna.samplers.BaseSampler}`."""


@hookspec
def orchestrator_reports() -> dict[str, Any]:  # type: ignore[empty-body]
    """Report formats by name: `{name: render(run: RunResult) -> str}`, or `{name: ReportFormat}`."""


@hookspec(firstresult=True)
def orchestrator_load_model(source: str) -> Any:
    """First answer wins. A torch module for a model reference that the plugin understands, else None."""


@hookspec(firstresult=True)
def orchestrator_probe_host() -> HardwareProfile | None:
    """First answer wins. The profile of this machine, from a plugin that knows it better than the built-in probe, else None."""


@hookspec
def orchestrator_check_recipe(recipe: Recipe, target: Target) -> list[str]:  # type: ignore[empty-body]
    """Check: return the reasons why the recipe is illegal on the target; an empty list if it is legal."""


@hookspec
def orchestrator_search_started(search: SearchStarted) -> None:
    """Handle the event: the original is measured, and the first candidate is about to be proposed."""


@hookspec
def orchestrator_trial_finished(trial: CandidateResult) -> None:
    """Handle the event: a candidate is complete, failed, rejected or stopped. A plugin that raises gets no further events."""


@hookspec
def orchestrator_search_ended(result: RunResult) -> None:
    """Handle the event: a run has ended or was interrupted, and everything is written."""


@hookspec
def orchestrator_commands(cli: "click.Group") -> None:
    """Add commands to the command line."""
