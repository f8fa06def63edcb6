"""`orchestrate check` on a simulated CPU: no noise, and the same verdict on every machine."""

from typing import Any

import onnx
import pytest

import orchestrator
from orchestrator.values.check import CheckResult, Criterion
from tests.conftest import Project, tiny_onnx


def criterion(found: CheckResult, name: str) -> Criterion:
    return next(each for each in found.criteria if each.name == name)


@pytest.mark.slow
@pytest.mark.usefixtures("toolchain")
def test_verdict_is_exact_and_the_same_each_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATE_QEMU")
    light, heavy = project.folder / "model.onnx", project.folder / "heavy.onnx"
    onnx.save(tiny_onnx(kernel=11), heavy)
    said: dict[str, Any] = {"device": "qemu:cortex-a72", "threads": 1, "max_growth": None, "max_memory_growth": 0.1}
    slower = orchestrator.check(light, heavy, **said)
    latency = criterion(slower, "latency")
    assert slower.exit_code == 1 and latency.verdict == "regressed"
    assert latency.change is not None and latency.low == latency.change == latency.high and latency.confidence is None
    assert latency.details["evidence"] == "simulated" and latency.details["instructions"]["candidate"] > 0
    assert criterion(slower, "peak-memory").verdict == "not judged"
    assert slower.environment["cpu"] == "cortex-a72 (simulated)", "where it was timed, not the machine that simulated it"
    faster = orchestrator.check(heavy, light, **said, data=str(project.folder / "arrays.npz"))
    assert faster.exit_code == 0 and criterion(faster, "quality").verdict == "ok"
    back = criterion(faster, "latency").change
    assert back is not None and (1 + latency.change) * (1 + back) == pytest.approx(1, rel=2e-3), "counted again, the same"
