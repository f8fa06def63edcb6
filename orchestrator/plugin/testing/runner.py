"""The kit over all that plugins bring: `python -m orchestrator.plugin.testing.runner OUTPUT DEVICE PLUGIN... [-- TESTS...]`.

It runs in a process of its own, for plugins crash, and a package that was just installed is seen by a new process only.
"""

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugin.contributions import CONTRACTS
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing.devices import DeviceTests
from orchestrator.plugin.testing.files import ProfileTests, ReadySearchTests, TaskTests
from orchestrator.plugin.testing.methods import MethodTests
from orchestrator.plugin.testing.metrics import MetricTests
from orchestrator.plugin.testing.reports import PluginTests, ReportTests
from orchestrator.plugin.testing.runtimes import RuntimeTests
from orchestrator.plugin.testing.samplers import SamplerTests

KITS: dict[str, tuple[type[Any], str]] = {
    "methods": (MethodTests, "method"),
    "runtimes": (RuntimeTests, "runtime"),
    "devices": (DeviceTests, "device"),
    "hardware_profiles": (ProfileTests, "path"),
    "metrics": (MetricTests, "metric"),
    "tasks": (TaskTests, "task"),
    "searches": (ReadySearchTests, "path"),
    "samplers": (SamplerTests, "factory"),
    "reports": (ReportTests, "render"),
}
"""The base class for each kind of contribution, and the attribute that takes one."""

MODULE = """
from orchestrator.plugin.testing.runner import classes
globals().update(classes({plugins!r}, {device!r}, __name__))
"""


def classes(plugins: list[str], device: str | None, module: str) -> dict[str, type[Any]]:
    """Return a test class for each contribution of these plugins, by the class's name."""
    registry = Registry.discover()
    found: dict[str, type[Any]] = {}

    def add(title: str, base: type[Any], **members: Any) -> None:
        name = f"Test{len(found)}"
        found[name] = type(name, (base,), {**members, "contribution": title, "__module__": module, "__doc__": title})

    for plugin in plugins:
        add(f"plugin {plugin}", PluginTests, plugin=registry.plugin(plugin))
        for kind, names in registry.brought().get(plugin, {}).items():
            base, attribute = KITS[kind]
            for name in names:
                item = registry.contributions(kind)[name]
                if kind == "reports" and (item := registry.reports()[name].run) is None:
                    continue
                members: dict[str, Any] = {attribute: staticmethod(item) if kind in ("samplers", "reports") else item}
                if kind == "methods":
                    members["lenient"] = True
                if kind == "devices":
                    members["reference"] = device
                add(f"{CONTRACTS[kind].word} {name}", base, **members)
    return found


class Recorder:
    """Recorder of pytest's outcomes."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._titles: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Record the contribution that each test belongs to."""
        for item in items:
            self._titles[item.nodeid] = getattr(getattr(item, "cls", None), "contribution", "the package's own tests")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a test file that cannot be imported."""
        if report.failed:
            self._keep("failed", report.nodeid, "the package's own tests", str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of a test."""
        title = self._titles.get(report.nodeid, "")
        if report.when == "call" or report.outcome != "passed":
            text = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
            self._keep(report.outcome, report.nodeid, title, text)

    def _keep(self, outcome: str, node: str, title: str, text: str) -> None:
        check = node.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        problem, _, fix = text.partition("\n  fix: ")
        if not fix and outcome == "failed":  # an error of the plugin, with a traceback
            lines = [line[1:].strip() for line in problem.splitlines() if line.startswith("E ")]
            problem = " ".join(lines[:2]) or problem.strip().splitlines()[-1]
        self.found.append({"of": title, "check": check, "outcome": outcome, "problem": problem, "fix": fix or None})


def main(arguments: list[str]) -> int:
    """Run the kit and write its outcomes as JSON."""
    output, device, *rest = arguments
    plugins, tests = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    recorder = Recorder()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "test_conformance.py"
        module.write_text(MODULE.format(plugins=plugins, device=device or None), "utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", "utf-8")
        options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-c", str(Path(folder) / "pytest.ini")]
        said = io.StringIO()
        with redirect_stderr(said):  # where pytest says why it did not begin
            code = int(pytest.main([*options, str(module), *tests], plugins=[recorder]))
    lines = [line.removeprefix("E ").strip() for line in said.getvalue().splitlines() if line.strip()]
    Path(output).write_text(json.dumps({"code": code, "found": recorder.found, "said": " ".join(lines)[:500]}), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
