"""The kit, and that an INT8 file of onnxruntime runs as it is."""

import orchestrator_openvino

from orchestrator.plugin import Recipe, Step
from orchestrator.plugin.testing import PluginTests, RuntimeTests, target


class TestOpenVino(RuntimeTests):
    runtime = orchestrator_openvino.OpenVino()


class TestPlugin(PluginTests):
    plugin = orchestrator_openvino


def test_form_that_openvino_cannot_read_is_illegal_there_and_nowhere_else():
    quantized = Step(method="static-int8", version=1, parameters={"form": "qoperator"})
    there = Recipe(steps=(quantized, Step(method="on-openvino", version=1)))
    assert orchestrator_openvino.orchestrator_check_recipe(recipe=there, target=target())
    assert not orchestrator_openvino.orchestrator_check_recipe(recipe=Recipe(steps=(quantized,)), target=target())
