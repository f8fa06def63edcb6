"""The plugin-facing module: all that a plugin needs of the orchestrator, and all that it may import.

A plugin is one file with an entry point in the group `orchestrator`:

    from orchestrator.plugin import TorchMethod, Number, hookimpl

    class Shrink(TorchMethod): ...

    @hookimpl
    def orchestrator_methods():
        return [Shrink()]
"""

from orchestrator.devices.session import Session
from orchestrator.errors import (
    DeviceUnavailable,
    EnvironmentFailure,
    FailureKind,
    InputError,
    JobFailed,
    MethodError,
    OrchestratorError,
    ParameterError,
    Refused,
)
from orchestrator.plugin.device import Device, SetupOptions, SimulatedDevice
from orchestrator.plugin.hookspecs import hookimpl
from orchestrator.plugin.method import BuildContext, Method, Need, OnnxMethod, TorchMethod, TorchToOnnxMethod, Train
from orchestrator.plugin.metric import Metric
from orchestrator.plugin.parameters import Choice, Number, Parameter, Parameters, narrowed, number, percent, plural
from orchestrator.plugin.report_format import ReportFormat
from orchestrator.plugin.runtime import Runtime
from orchestrator.plugin.task import TaskSource
from orchestrator.values.check import CheckResult, Criterion
from orchestrator.values.device import DeviceListing, DeviceState, Job, Simulated
from orchestrator.values.direction import Direction
from orchestrator.values.events import SearchStarted
from orchestrator.values.finding import Finding
from orchestrator.values.profile import HardwareProfile
from orchestrator.values.recipe import ParameterValue, ParameterValues, Recipe, Step
from orchestrator.values.results import (
    CandidateResult,
    Importance,
    LatencyResult,
    QualityResult,
    RunResult,
    StepResult,
)
from orchestrator.values.target import Limits, Target
from orchestrator.values.task import TaskDescription, TensorSpec

__all__ = [
    "BuildContext",
    "CandidateResult",
    "CheckResult",
    "Choice",
    "Criterion",
    "Device",
    "DeviceListing",
    "DeviceState",
    "DeviceUnavailable",
    "Direction",
    "EnvironmentFailure",
    "FailureKind",
    "Finding",
    "HardwareProfile",
    "Importance",
    "InputError",
    "Job",
    "JobFailed",
    "LatencyResult",
    "Limits",
    "Method",
    "MethodError",
    "Metric",
    "Need",
    "Number",
    "OnnxMethod",
    "OrchestratorError",
    "Parameter",
    "ParameterError",
    "ParameterValue",
    "ParameterValues",
    "Parameters",
    "QualityResult",
    "Recipe",
    "Refused",
    "ReportFormat",
    "RunResult",
    "Runtime",
    "SearchStarted",
    "Session",
    "SetupOptions",
    "Simulated",
    "SimulatedDevice",
    "Step",
    "StepResult",
    "Target",
    "TaskDescription",
    "TaskSource",
    "TensorSpec",
    "TorchMethod",
    "TorchToOnnxMethod",
    "Train",
    "hookimpl",
    "narrowed",
    "number",
    "percent",
    "plural",
]
