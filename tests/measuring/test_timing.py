"""The timing protocol on real models in real processes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from orchestrator.devices.host import HostDevice
from orchestrator.measuring.inspection import scoring_batch
from orchestrator.measuring.timing import time_alone, time_beside
from orchestrator.plugin import Job, JobFailed
from orchestrator.plugin.registry import Registry
from tests.conftest import tiny_onnx

RUNTIME = Registry.discover().runtimes()["onnxruntime"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    onnx.save(tiny_onnx(), tmp_path / "model.onnx")
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=(70, 1, 12, 12)).astype(np.float32))
    return Job(
        model=tmp_path / "model.onnx",
        load=RUNTIME.source(),
        imports=RUNTIME.imports,
        inputs={"image": tmp_path / "image.npy"},
        threads=1,
        options={},
        timeout_s=60,
    )


def test_measurement_keeps_all_samples_with_an_interval_around_the_median(job: Job) -> None:
    with HostDevice().open(job) as session:
        found = time_alone(session, threads=1, seed=0).measurement
    assert found.unit == "ms"
    assert len(found.samples) >= 10
    assert min(found.samples) > 0
    assert found.low <= found.median <= found.high
    assert found.median <= found.p90 <= found.p99
    assert found.median == np.median(found.samples)


def test_larger_network_is_slower_beside_the_smaller_one(job: Job, tmp_path: Path) -> None:
    import dataclasses

    onnx.save(tiny_onnx(kernel=11), tmp_path / "large.onnx")
    large = dataclasses.replace(job, model=tmp_path / "large.onnx")
    with HostDevice().open(large) as one, HostDevice().open(job) as two:
        found = time_beside(one, two, threads=1, seed=0)
    assert found.ratio is not None
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert found.ratio.low > 1, "121 against 9 products a pixel"


def test_outputs_are_those_of_the_runtime_for_any_batch(job: Job, tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(job.model)
    wanted = session.run(None, {"image": np.load(job.inputs["image"])})[0]
    for batch in (1, 64):
        folder = tmp_path / str(batch)
        folder.mkdir()
        with HostDevice().open(job) as opened:
            (path,) = opened.predict(folder, batch=batch)
        np.testing.assert_allclose(np.load(path), wanted, rtol=1e-5, atol=1e-6)


def test_scoring_batch_is_one_where_the_file_fixes_it(job: Job, tmp_path: Path) -> None:
    assert scoring_batch(job.model) > 1
    onnx.save(tiny_onnx(batch=1), tmp_path / "fixed.onnx")
    assert scoring_batch(tmp_path / "fixed.onnx") == 1


def test_memory_grows_with_the_weights_and_not_with_the_runtime(job: Job, tmp_path: Path) -> None:
    import dataclasses

    model = tiny_onnx()
    heavy = np.zeros((8_000_000,), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(heavy, "ballast"))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["ballast"], ["sum"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Mul", ["logits", "sum"], ["product"]))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, ["batch", 3]))
    onnx.save(model, tmp_path / "heavy.onnx")
    peaks = []
    for path in (job.model, tmp_path / "heavy.onnx"):
        with HostDevice().open(dataclasses.replace(job, model=path)) as session:
            session.time(seconds=0, runs=1)
            peaks.append(session.peak_memory_bytes())
    assert 0 < peaks[0] < 30_000_000
    assert peaks[1] > peaks[0] + 25_000_000


def test_model_that_cannot_be_loaded_fails_with_the_runtimes_reason(job: Job, tmp_path: Path) -> None:
    job.model.write_bytes(b"no model")
    with pytest.raises(JobFailed) as error:
        HostDevice().open(job)
    assert error.value.kind == "error"
    assert "INVALID_PROTOBUF" in str(error.value).upper() or "protobuf" in str(error.value).lower()
