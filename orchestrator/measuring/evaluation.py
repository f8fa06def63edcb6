"""The figures of one exported model that take running it: times and memory from fresh processes, beside the estimate."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.measuring.inspection import Inspection
from orchestrator.measuring.timing import Timing, time_alone, time_beside
from orchestrator.plugin.device import Device, Job
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.evidence import Estimate, Evidence
from orchestrator.values.results import LatencyResult
from orchestrator.values.target import Target

REQUEST_TIMEOUT_S = 120.0
SCORING_TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """What was observed by running the model, and what was computed for a target that is not here."""

    latency: list[LatencyResult]
    peak_memory_bytes: int


class Evaluator:
    """Measures exported models for one target on one device.

    Args:
        inputs: `{input name: .npy file}` of the validation split; times are taken on its first examples.
        most_s: Time that any single answer of a model may take.
    """

    def __init__(
        self,
        target: Target,
        runtime: Runtime,
        device: Device,
        *,
        inputs: Mapping[str, Path],
        most_s: float,
        memory_bytes: int,
        seed: int,
    ) -> None:
        self.target, self._runtime, self._device = target, runtime, device
        self._inputs, self._most_s, self._memory_bytes, self._seed = dict(inputs), most_s, memory_bytes, seed
        self.threads = min(target.threads, device.cores())

    def run(self, model: Inspection, baseline: Path | None) -> RunFigures:
        """Times and memory, each model in a fresh process; beside the baseline where one is given.

        Raises:
            JobFailed: the model cannot be loaded or run within the limits.
        """
        with self._device.open(self._job(Path(model.path), self._inputs)) as session:
            session.time(seconds=0, runs=1)
            peak = session.peak_memory_bytes()
            if baseline is None:
                timing = time_alone(session, threads=self.threads, seed=self._seed)
            else:
                with self._device.open(self._job(baseline, self._inputs)) as other:
                    timing = time_beside(session, other, threads=self.threads, seed=self._seed)
            peak = max(peak, session.peak_memory_bytes())
        latency = [self._measured(timing)]
        if model.estimate is not None:
            latency.insert(0, self._estimated(model.estimate))
        return RunFigures(latency=latency, peak_memory_bytes=peak)

    def outputs(self, path: Path, inputs: Mapping[str, Path], folder: Path, batch: int) -> list[Path]:
        """The outputs on a split, as .npy files in `folder`, from a fresh process.

        Raises:
            JobFailed: the model cannot be run.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._device.open(self._job(path, inputs, most_s=SCORING_TIMEOUT_S)) as session:
            return session.predict(folder, batch=batch)

    def _job(self, path: Path, inputs: Mapping[str, Path], most_s: float = REQUEST_TIMEOUT_S) -> Job:
        options: dict[str, Any] = dict(self.target.support.options)
        if not self.target.is_device:
            options.pop("providers", None)  # the target's accelerator is not here; the host's figure is its CPU's
        return Job(
            model=path,
            load=self._runtime.source(),
            imports=self._runtime.imports,
            inputs=inputs,
            threads=self.threads,
            options=options,
            timeout_s=min(most_s, self._most_s),
            memory_bytes=self._memory_bytes,
        )

    def _measured(self, timing: Timing) -> LatencyResult:
        measurement = timing.measurement
        fewer = self.threads < self.target.threads
        return LatencyResult(
            evidence=Evidence.MEASURED_ON_TARGET.value if self.target.is_device else Evidence.MEASURED_ON_HOST.value,
            device=self.target.device,
            runtime=self._runtime.name,
            threads=self.threads,
            median_ms=measurement.median,
            low_ms=measurement.low,
            high_ms=measurement.high,
            p90_ms=measurement.p90,
            p99_ms=measurement.p99,
            samples=len(measurement.samples),
            disturbed=measurement.disturbed,
            note=f"the target uses {self.target.threads} threads, but only {self.threads} cores are here" if fewer else None,
            ratio=timing.ratio,
        )

    def _estimated(self, estimate: Estimate) -> LatencyResult:
        return LatencyResult(
            evidence=Evidence.ESTIMATED.value,
            device=self.target.profile.name,
            runtime=self.target.runtime,
            threads=self.target.threads,
            median_ms=estimate.value,
            low_ms=estimate.low,
            high_ms=estimate.high,
            note=estimate.model + (f"; operators it does not know: {', '.join(estimate.unknown)}" if estimate.unknown else ""),
        )
