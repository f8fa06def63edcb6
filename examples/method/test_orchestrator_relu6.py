"""The kit, with a network that has what the method changes."""

import numpy as np
import orchestrator_relu6
import torch
from torch import nn

from orchestrator.plugin.testing import Case, MethodTests, PluginTests


def smooth() -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(128, 5))
    images = np.random.default_rng(0).standard_normal((64, 3, 8, 8), dtype=np.float32)
    return Case(model=model.eval(), inputs={"image": images}, classes=5)


class TestRelu6(MethodTests):
    method = orchestrator_relu6.Relu6()
    cases = {"smooth": smooth}


class TestPlugin(PluginTests):
    plugin = orchestrator_relu6
