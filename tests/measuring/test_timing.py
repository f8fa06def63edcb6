"""The timing protocol on real models in real processes."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from orchestrator.api.measure import verdict
from orchestrator.api.resolve import profile_named, resolve_target
from orchestrator.measuring.disturbance import observed
from orchestrator.measuring.model_info import scoring_batch
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.timing import Plan, Timing, time_models
from orchestrator.plugin import DeviceState, InputError, Job, JobFailed, Session
from orchestrator.plugin.registry import Registry
from orchestrator.values.results import LatencyResult
from orchestrator_devices.host import HostDevice
from tests.conftest import tiny_onnx
from tests.jobs import tiny_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return tiny_job(tmp_path)


def measured(*jobs: Job, single_thread: bool = True, **plan: object) -> list[Timing]:
    openers = [functools.partial(HostDevice().open, job) for job in jobs]
    return time_models(openers, plan=Plan(**plan), seed=0, single_thread=single_thread, device="host")  # type: ignore[arg-type]


def test_measurement_keeps_all_samples_with_an_interval_around_the_median(job: Job) -> None:
    (timing,) = measured(job, max_seconds=2.0)
    found = timing.measurement
    assert found.unit == "ms"
    assert len(found.samples) == len(timing.table) >= 10
    assert min(found.samples) > 0
    assert found.low <= found.median <= found.high
    assert found.median <= found.p90 <= found.p99
    assert found.median == np.median(found.samples)
    assert timing.cpu_median_ms is not None and timing.cpu_median_ms > 0
    assert timing.ratio is None


def test_larger_network_is_slower_beside_the_smaller_one(job: Job, tmp_path: Path) -> None:
    onnx.save(tiny_onnx(kernel=41), tmp_path / "large.onnx")
    found, other = measured(dataclasses.replace(job, model=tmp_path / "large.onnx"), job, max_seconds=3.0)
    assert found.ratio is not None and other.ratio is None
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert found.ratio.low > 1, "1,681 against 9 products a pixel: tens of times as long, whatever else runs"
    assert found.cpu_ratio is not None and found.cpu_ratio.low > 1


def test_rounds_are_fresh_processes_on_the_same_cores(job: Job) -> None:
    found, other = measured(job, job, max_seconds=120.0, rounds=3, precision_goal=10.0)
    assert found.conditions["rounds"] == 3
    assert {r for r, _, _, _ in found.table} == {0, 1, 2}
    assert found.conditions["on_cores"] == other.conditions["on_cores"]
    assert len(found.conditions["on_cores"]) == 1
    assert found.conditions["ended_by"] == "precision-goal"


class Scripted(Session):
    """A model whose times are written down; a timer of any resolution."""

    def __init__(self, seconds: Callable[[int], float], *, resolution: float = 1e-9, joules: float | None = None) -> None:
        self._seconds, self._resolution, self._joules, self._calls = seconds, resolution, joules, 0
        self._clock = 0.0

    def time(self, *, seconds: float, runs: int, inner: int = 1) -> list[tuple[float, float, float]]:
        found = []
        for _ in range(min(runs, 20)):
            value = self._seconds(self._calls)
            self._calls += 1
            self._clock += value * inner
            found.append((value, value, value))
        return found

    def timer_resolution(self) -> float:
        return self._resolution

    def state(self) -> DeviceState:
        return DeviceState(at_s=self._clock, energy_j=None if self._joules is None else self._joules * self._clock)

    def predict(self, folder: Path, *, batch: int) -> list[Path]:
        return []

    def peak_memory_bytes(self) -> int:
        return 1

    def close(self) -> None:
        pass


def scripted(*sessions: Session, **plan: object) -> list[Timing]:
    openers = [functools.partial(lambda session: session, session) for session in sessions]
    return time_models(openers, plan=Plan(**plan), seed=0, single_thread=True, device="a board")  # type: ignore[arg-type]


def test_warm_up_ends_when_the_times_no_longer_change() -> None:
    cold = Scripted(lambda call: 1e-3 * (1 + 9 * max(0.0, 1 - call / 200)))  # from 10 ms down to 1 ms over 200 inferences
    (timing,) = scripted(cold, max_seconds=5.0)
    assert timing.conditions["stationary"]
    assert max(timing.measurement.samples) < 1.2, "the slow ones were warm-up, and are in nobody's figure"


def test_times_that_never_settle_are_said_to_be_so() -> None:
    restless = Scripted(lambda call: 1e-3 * 1.01**call)
    (timing,) = scripted(restless, max_seconds=0.2)
    assert not timing.conditions["stationary"]


def test_far_samples_are_flagged_and_kept() -> None:
    (timing,) = scripted(Scripted(lambda call: 0.5 if call % 40 == 39 else 1e-3 + call % 7 * 1e-6), max_seconds=2.0)
    assert timing.conditions["outliers"] > 0
    assert max(timing.measurement.samples) == 500
    assert timing.measurement.median < 1.1


def test_measuring_ends_at_the_goal_or_when_time_is_up_and_says_which() -> None:
    random = np.random.default_rng(0).uniform(1e-3, 3e-3, 100_000)
    (steady,) = scripted(Scripted(lambda call: 1e-3), max_seconds=5.0)
    assert steady.conditions["ended_by"] == "precision-goal"
    (noisy,) = scripted(Scripted(lambda call: float(random[call // 21])), max_seconds=0.1)
    assert noisy.conditions["ended_by"] == "max-seconds"
    assert noisy.conditions["precision"] > 0.02


def test_sample_of_a_very_short_model_is_many_inferences() -> None:
    (timing,) = scripted(Scripted(lambda call: 2e-6, resolution=1e-6), max_seconds=2.0)
    assert timing.conditions["inferences_a_sample"] == 100
    assert timing.measurement.median == pytest.approx(2e-3)


def test_timer_too_coarse_for_the_model_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="timer of a board goes in steps of 15.6 ms, too coarse for a model that takes"):
        scripted(Scripted(lambda call: 1e-7, resolution=0.0156), max_seconds=2.0)


def test_energy_is_there_where_the_machine_has_a_counter_and_absent_where_not() -> None:
    (with_counter,) = scripted(Scripted(lambda call: 1e-3, joules=20.0), max_seconds=2.0)
    assert with_counter.energy_mj == pytest.approx(20.0)  # 20 W for a millisecond
    (without,) = scripted(Scripted(lambda call: 1e-3), max_seconds=2.0)
    assert without.energy_mj is None


def pair(*, busy: float = 0.0, stolen: float = 0.0, **after: object) -> list[tuple[DeviceState, DeviceState]]:
    begin = DeviceState(at_s=0.0, busy_s=100.0, stolen_s=5.0, cores=4, throttled=7)
    values: dict[str, object] = {
        "at_s": 10.0,
        "busy_s": 100.0 + busy,
        "stolen_s": 5.0 + stolen,
        "cores": 4,
        "throttled": 7,
        **after,
    }
    return [(begin, DeviceState(**values))]  # type: ignore[arg-type]


def test_disturbances_are_named_and_quiet_is_quiet() -> None:
    assert observed(pair(busy=10.0), 10.0, (3,)).disturbed(0.001) is None
    assert "the core was taken away for 30%" in str(observed(pair(busy=10.0), 10.0, (3,)).disturbed(0.3))
    assert "other work kept 2.0 of 4 cores busy" in str(observed(pair(busy=30.0), 10.0, (3,)).disturbed(0.0))
    assert "the hypervisor took 10%" in str(observed(pair(busy=10.0, stolen=4.0), 10.0, (3,)).disturbed(0.0))
    assert "slowed itself down" in str(observed(pair(busy=10.0, throttled=8), 10.0, (3,)).disturbed(0.0))
    assert "slowed itself down" in str(observed(pair(busy=10.0, throttling=True), 10.0, (3,)).disturbed(0.0))
    assert observed([(None, None)], 1.0, ()).disturbed(None) is None


def test_verdict_needs_the_whole_interval_on_one_side_of_the_margin() -> None:
    assert verdict(0.90, 0.95, 0.02) == "faster"
    assert verdict(1.03, 1.08, 0.02) == "slower"
    assert verdict(0.995, 1.015, 0.02) == "same"
    assert verdict(0.97, 1.03, 0.02) == "inconclusive"
    assert verdict(0.97, 0.99, 0.02) == "inconclusive"
    assert verdict(1.0, 1.0, 0.0) == "same"


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


@pytest.fixture
def evaluator(job: Job) -> Evaluator:
    target, runtime, (device,) = resolve_target(profile_named("host", Registry.discover()), Registry.discover(), threads=1)
    return Evaluator(target, runtime, device, inputs=job.inputs, most_s=60, memory_bytes=2_000_000_000, seed=0)


def test_models_are_timed_together_and_one_that_fails_takes_no_other_with_it(
    evaluator: Evaluator, job: Job, tmp_path: Path
) -> None:
    onnx.save(tiny_onnx(kernel=41), tmp_path / "large.onnx")
    good = {"large": tmp_path / "large.onnx", "copy": job.model}
    found = evaluator.together(good, job.model, seconds=3.0)
    assert set(found.figures) == {"large", "copy", "baseline"}
    large = found.figures["large"]
    assert isinstance(large, LatencyResult) and large.ratio is not None and large.ratio.low > 1
    assert len(found.samples["large"]) == large.samples
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    found = evaluator.together({"broken": tmp_path / "broken.onnx", **good}, job.model, seconds=3.0)
    assert isinstance(found.figures["broken"], JobFailed)
    assert isinstance(found.figures["large"], LatencyResult)
    assert set(found.samples) == {"large", "copy", "baseline"}
