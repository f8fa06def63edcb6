"""The conformance kit: what every contribution is held to, ours and others'. It needs pytest.

A plugin's own test module subclasses a base class for each thing that it brings:

    from orchestrator.plugin.testing import MethodTests
    from my_plugin import Shrink

    class TestShrink(MethodTests):
        method = Shrink()

`pytest` runs it; `orchestrate plugins check PACKAGE` runs the same over all that a package brings.
"""

from orchestrator.plugin.testing.cases import Case, make_case, target
from orchestrator.plugin.testing.devices import DeviceTests
from orchestrator.plugin.testing.files import ProfileTests, ReadySearchTests, TaskTests
from orchestrator.plugin.testing.methods import MethodTests
from orchestrator.plugin.testing.metrics import MetricTests
from orchestrator.plugin.testing.reports import PluginTests, ReportTests
from orchestrator.plugin.testing.runtimes import RuntimeTests
from orchestrator.plugin.testing.samplers import SamplerTests
from orchestrator.plugin.testing.samples import sample_candidate, sample_empty_run, sample_run, sample_start

__all__ = [
    "Case",
    "DeviceTests",
    "MethodTests",
    "MetricTests",
    "PluginTests",
    "ProfileTests",
    "ReadySearchTests",
    "ReportTests",
    "RuntimeTests",
    "SamplerTests",
    "TaskTests",
    "make_case",
    "sample_candidate",
    "sample_empty_run",
    "sample_run",
    "sample_start",
    "target",
]
