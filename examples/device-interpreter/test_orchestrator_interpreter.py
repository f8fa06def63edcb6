"""The kit, and what a user may get wrong."""

import orchestrator_interpreter
import pytest

from orchestrator.plugin import InputError
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import DeviceTests, PluginTests


class TestInterpreter(DeviceTests):
    device = orchestrator_interpreter.Interpreter()


class TestPlugin(PluginTests):
    plugin = orchestrator_interpreter


def test_interpreter_that_is_not_there_is_one_line():
    device = orchestrator_interpreter.Interpreter().attach("interpreter:/no/such/python")
    with pytest.raises(InputError, match="cannot be started"):
        device.check(Registry.discover().runtimes()["onnxruntime"])
