"""The kit, and the metric against a count by hand."""

import numpy as np
import orchestrator_tumours

from orchestrator.plugin.testing import MetricTests, PluginTests, TaskTests


class TestMacroF1(MetricTests):
    metric = orchestrator_tumours.MacroF1()


class TestTumours(TaskTests):
    task = orchestrator_tumours.orchestrator_tasks()[0]


class TestPlugin(PluginTests):
    plugin = orchestrator_tumours


def test_macro_f1_is_the_mean_of_both_classes():
    # Class 0: precision 2/3, recall 2/2, F1 0.8. Class 1: precision 1/1, recall 1/2, F1 2/3.
    logits = np.eye(2)[[0, 0, 0, 1]]
    score = orchestrator_tumours.MacroF1().score([logits], np.array([0, 0, 1, 1]), None)
    assert np.isclose(score, (0.8 + 2 / 3) / 2)
