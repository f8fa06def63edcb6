"""What we bring ourselves passes the kit that others are held to; the methods do so in tests/plugins/test_methods.py."""

from typing import Any

import orchestrator_hardware_profiles
import orchestrator_searches
import pytest

import orchestrator_distillation
import orchestrator_graph
import orchestrator_metrics
import orchestrator_morphology
import orchestrator_pruning
import orchestrator_quantization
import orchestrator_runtimes
import orchestrator_samplers
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import (
    DeviceTests,
    MetricTests,
    PluginTests,
    ProfileTests,
    ReadySearchTests,
    ReportTests,
    RuntimeTests,
    SamplerTests,
    TaskTests,
)
from orchestrator_devices.host import HostDevice

REGISTRY = Registry.discover()


def made(base: type[Any], name: str, **members: Any) -> None:
    title = (
        "Test" + "".join(part.capitalize() for part in name.replace("_", "-").split("-")) + base.__name__.removesuffix("Tests")
    )
    globals()[title] = type(title, (base,), {**members, "__module__": __name__})


@pytest.mark.slow
class TestOnnxruntime(RuntimeTests):
    runtime = REGISTRY.runtimes()["onnxruntime"]


@pytest.mark.slow
class TestHost(DeviceTests):
    device = HostDevice()


@pytest.mark.slow
class TestDigits(TaskTests):
    task = REGISTRY.tasks()["digits"]


for _name in REGISTRY.metrics():
    made(MetricTests, _name, metric=REGISTRY.metrics()[_name])
for _name in ("ehvi", "nsga2", "nsga3", "random", "tpe"):
    made(SamplerTests, _name, factory=staticmethod(REGISTRY.samplers()[_name]))
for _name, _path in REGISTRY.profile_files().items():
    made(ProfileTests, _name, path=_path)
for _name, _path in REGISTRY.search_files().items():
    made(ReadySearchTests, _name, path=_path)
for _name, _form in REGISTRY.reports().items():
    if _form.run is not None:
        made(ReportTests, _name, render=staticmethod(_form.run))
for _module in (
    orchestrator_distillation,
    orchestrator_graph,
    orchestrator_hardware_profiles,
    orchestrator_metrics,
    orchestrator_morphology,
    orchestrator_pruning,
    orchestrator_quantization,
    orchestrator_runtimes,
    orchestrator_samplers,
    orchestrator_searches,
):
    made(PluginTests, _module.__name__, plugin=_module)
