"""Tests of the export to ONNX."""

import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from orchestrator.building.export import export_onnx


def test_the_exporters_operator_table_is_built_once_a_process(tmp_path, monkeypatch):
    built = []
    original = ONNXRegistry.from_torchlib

    def counted(*args, **options):
        built.append(1)
        return original(*args, **options)

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", counted)
    model = torch.nn.Linear(3, 2).eval()
    files = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for file in files:
        export_onnx(model, {"x": torch.zeros(2, 3)}, file)
    assert built == [1]
    assert ONNXRegistry.from_torchlib is counted
    assert files[0].read_bytes() == files[1].read_bytes()
