"""Values of exported models that need running them: times, memory and energy from new processes, beside the estimate."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.devices.session import Session
from orchestrator.errors import JobFailed, Refused
from orchestrator.measuring.model_info import ModelInfo
from orchestrator.measuring.timing import Plan, Timing, time_models
from orchestrator.plugin.device import Device
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.device import Job
from orchestrator.values.evidence import Estimate, Evidence
from orchestrator.values.recipe import BASELINE
from orchestrator.values.results import LatencyResult
from orchestrator.values.target import Target

REQUEST_TIMEOUT_S = 120.0
SCORING_TIMEOUT_S = 600.0
OBJECTIVE = Plan(max_seconds=5.0)
BESIDE = Plan(max_seconds=1.5)  # shown only: the objective is an estimate
TOGETHER_ROUNDS = 3
TOGETHER_S = 3.0  # for each model
MEMORY_SHARE = 0.75  # of the memory of another machine
CPU_PROVIDER = "CPUExecutionProvider"
EMPTY_PROCESS_BYTES = 150_000_000
LOADED_SHARE = 3  # a loaded model needs a multiple of its file size


@dataclass(frozen=True, kw_only=True, slots=True)
class RunValues:
    """Measured values of a model, and the computed latency of a target that is not here.

    Attributes:
        energy_mj: Energy of one inference, or None if the device has no counter.
        samples: The raw times, ms, in the order of measurement.
    """

    latency: list[LatencyResult]
    peak_memory_bytes: int
    energy_mj: float | None = None
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """The times of models that were timed side by side.

    Attributes:
        figures: For each id a latency with its ratio to the baseline, or the reason why there is none; the baseline's under its
            own id.
        samples: The raw times, ms, by id.
    """

    figures: dict[str, LatencyResult | JobFailed]
    samples: dict[str, tuple[float, ...]]


class Evaluator:
    """Measures exported models for one target on one device.

    Args:
        target: The target.
        runtimes: The runtimes by name.
        device: The device.
        inputs: `{input name: .npy file}` of the validation split; models are timed on its first examples.
        most_s: Time limit of one answer of a model in seconds.
        memory_bytes: Memory limit of a process; on another machine at most three quarters of its memory.
        seed: Seed of the order of blocks.
        left_s: Returns the seconds that are left for an answer.
        alternatives: Further runtimes that models may name.
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
        left_s: Callable[[], float] = lambda: math.inf,
        alternatives: Sequence[Runtime] = (),
    ) -> None:
        self._others = {other.name: other for other in alternatives}
        self._left_s = left_s
        self.target, self.device, self._runtime = target, device, runtime
        self._inputs, self._most_s, self._given_memory, self._seed = dict(inputs), most_s, memory_bytes, seed

    @functools.cached_property
    def threads(self) -> int:
        """Return the threads of one inference: the target's, but at most the device's cores."""
        return min(self.target.threads, self.device.cores())

    @functools.cached_property
    def _memory_bytes(self) -> int:
        theirs = self.device.environment().get("memory_bytes") if self.device.remote else None
        return int(MEMORY_SHARE * theirs) if theirs else self._given_memory

    def run(self, model: ModelInfo, baseline: Path | None) -> RunValues:
        """Measure times and memory, each model in a new process, beside the baseline if one is given.

        Raises:
            JobFailed: The model cannot be loaded or run within the limits.
            DeviceUnavailable: The device is lost.
        """
        paths = [Path(model.path)] if baseline is None else [Path(model.path), baseline]
        timing = self.time(paths, OBJECTIVE if self.target.is_device else BESIDE, [model.runtime])[0]
        latency = [self.latency(timing, model.runtime)]
        if model.estimate is not None:
            latency.insert(1 if self.target.is_device else 0, estimated(model.estimate, self.target))
        return RunValues(
            latency=latency,
            peak_memory_bytes=timing.peak_memory_bytes,
            energy_mj=timing.energy_mj,
            samples=timing.measurement.samples,
        )

    def settings(self, runtime: str | None = None) -> dict[str, Any]:
        """Return everything but the model and the data that the values depend on, as JSON-ready data.

        Args:
            runtime: Runtime of the model, or None for the target's first, in which the baseline is timed.
        """
        beside = {} if runtime is None else {"beside": self._identity(None), "beside_options": self._said_options(None)}
        return {
            **beside,
            "runtime": self._identity(runtime),
            "options": self._said_options(runtime),
            "threads": self.threads,
            "device": self.target.device,
            "is_device": self.target.is_device,
            "seed": self._seed,
        }

    def _said_options(self, runtime: str | None) -> dict[str, str]:
        return {name: str(value) for name, value in self._options(runtime).items()}

    def _identity(self, name: str | None) -> list[str]:
        runtime = self._runtime_of(name)
        try:
            version = runtime.version()
        except Refused:  # installed on the device only, whose description has its version
            version = ""
        return [runtime.name, version, runtime.source()]

    def _runtime_of(self, name: str | None) -> Runtime:
        return self._runtime if name is None or name == self._runtime.name else self._others[name]

    def briefly(self, model: ModelInfo, baseline: Path) -> LatencyResult:
        """Measure an untrained model briefly beside the baseline. Errors as in `run`."""
        return self.latency(self.time([Path(model.path), baseline], BESIDE, [model.runtime])[0], model.runtime)

    def together(
        self,
        models: Mapping[str, Path],
        baseline: Path,
        *,
        seconds: float | None = None,
        runtimes: Mapping[str, str] | None = None,
    ) -> Together:
        """Time models and the baseline side by side, in several rounds of new processes.

        Args:
            baseline: File of the baseline.
            models: File by candidate id.
            seconds: Time for all of them; None for three seconds a model.
            runtimes: Runtime of each; others run in the target's first.

        Raises:
            JobFailed: The baseline cannot be run.
            DeviceUnavailable: The device is lost.
        """
        found: dict[str, Timing | JobFailed] = {}
        by = runtimes or {}
        share = (seconds or TOGETHER_S * (len(models) + 1)) / (len(models) + 1)
        for group in self._groups(models):
            plan = Plan(max_seconds=share * (len(group) + 1), rounds=TOGETHER_ROUNDS)
            try:
                timings = self.time([*(models[name] for name in group), baseline], plan, [by.get(name) for name in group])
                found |= zip([*group, BASELINE], timings, strict=True)
            except JobFailed:
                found |= self._one_by_one(group, models, baseline, Plan(max_seconds=2 * share, rounds=TOGETHER_ROUNDS), by)
        return Together(
            figures={name: one if isinstance(one, JobFailed) else self.latency(one, by.get(name)) for name, one in found.items()},
            samples={name: one.measurement.samples for name, one in found.items() if not isinstance(one, JobFailed)},
        )

    def _one_by_one(
        self, group: Sequence[str], models: Mapping[str, Path], baseline: Path, plan: Plan, by: Mapping[str, str]
    ) -> dict[str, Timing | JobFailed]:
        """Time each model beside the baseline alone, so that a failing one does not affect the others."""
        (alone,) = self.time([baseline], plan)
        found: dict[str, Timing | JobFailed] = {BASELINE: alone}
        for name in group:
            try:
                found[name] = self.time([models[name], baseline], plan, [by.get(name)])[0]
            except JobFailed as error:
                found[name] = error
        return found

    def _groups(self, models: Mapping[str, Path]) -> list[list[str]]:
        """Return groups of models that fit into memory together."""
        groups: list[list[str]] = [[]]
        used = 0
        for name, path in models.items():
            needs = EMPTY_PROCESS_BYTES + LOADED_SHARE * path.stat().st_size
            if groups[-1] and used + needs > self._memory_bytes / 2:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += needs
        return groups

    def time(
        self, paths: Sequence[Path], plan: Plan, runtimes: Sequence[str | None] = (), *, seed: int | None = None
    ) -> list[Timing]:
        """Time files side by side; ratios are to the last one.

        Args:
            paths: The files.
            plan: How long to measure.
            runtimes: Runtimes of the first files; None, and for those that follow, the target's first.
            seed: Seed of the order of blocks, or None for the evaluator's.

        Raises:
            JobFailed: A model cannot be loaded or run within the limits.
            DeviceUnavailable: The device is lost.
        """

        def opener(path: Path, runtime: str | None) -> Callable[[], Session]:
            return lambda: self.device.open(self._job(path, self._inputs, runtime=runtime))

        by = [*runtimes, *(None for _ in range(len(paths) - len(runtimes)))]
        return time_models(
            [opener(path, runtime) for path, runtime in zip(paths, by, strict=True)],
            plan=plan,
            seed=self._seed if seed is None else seed,
            single_thread=self.threads == 1 and all(self._in_calling_thread(runtime) for runtime in by),
            device=self.target.device,
        )

    def _in_calling_thread(self, runtime: str | None) -> bool:
        """Return True if the calling thread's CPU time is the model's cost: not if an accelerator or another thread computes."""
        on_cpu = str(self._options(runtime).get("providers", CPU_PROVIDER)) == CPU_PROVIDER
        return on_cpu and self._runtime_of(runtime).in_calling_thread

    def outputs(self, path: Path, inputs: Mapping[str, Path], folder: Path, batch: int, runtime: str | None = None) -> list[Path]:
        """Compute the outputs on a split, as .npy files in `folder`, in a new process.

        Raises:
            JobFailed: The model cannot be run.
            DeviceUnavailable: The device is lost.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self.device.open(self._job(path, inputs, most_s=SCORING_TIMEOUT_S, runtime=runtime)) as session:
            return session.predict(folder, batch=batch)

    def _options(self, runtime: str | None = None) -> dict[str, Any]:
        support = self.target.support if runtime is None else self.target.profile.runtime(runtime)
        options: dict[str, Any] = dict(support.options) if support is not None else {}
        if not self.target.is_device:
            options.pop("providers", None)  # the target's accelerator is not here; the host's value is that of its CPU
        return options

    def _job(self, path: Path, inputs: Mapping[str, Path], most_s: float = REQUEST_TIMEOUT_S, runtime: str | None = None) -> Job:
        own = self._runtime_of(runtime)
        return Job(
            model=path,
            load=own.source(),
            imports=own.imports,
            inputs=inputs,
            threads=self.threads,
            options=self._options(runtime),
            timeout_s=min(most_s, self._most_s, self._left_s()),
            memory_bytes=self._memory_bytes,
        )

    def latency(self, timing: Timing, runtime: str | None = None) -> LatencyResult:
        """Return a timing as a latency of the results, of a model in this runtime."""
        measurement = timing.measurement
        fewer = self.threads < self.target.threads
        notes = []
        if fewer:
            notes.append(f"the target uses {self.target.threads} threads, but only {self.threads} cores are here")
        if (inner := timing.conditions["inferences_a_sample"]) > 1:
            notes.append(f"a sample is the mean of {inner} inferences, for one is too short for the timer")
        return LatencyResult(
            evidence=Evidence.MEASURED_ON_TARGET if self.target.is_device else Evidence.MEASURED_ON_HOST,
            device=self.target.device,
            runtime=runtime or self._runtime.name,
            threads=self.threads,
            median_ms=measurement.median,
            low_ms=measurement.low,
            high_ms=measurement.high,
            p90_ms=measurement.p90,
            p99_ms=measurement.p99,
            samples=len(measurement.samples),
            disturbed=measurement.disturbed,
            note="; ".join(notes) or None,
            ratio=timing.ratio,
            cpu_median_ms=timing.cpu_median_ms,
            conditions=timing.conditions,
        )


def estimated(estimate: Estimate, target: Target) -> LatencyResult:
    """Return an estimate as a latency of the results."""
    return LatencyResult(
        evidence=Evidence.ESTIMATED,
        device=target.profile.name,
        runtime=target.runtime,
        threads=target.threads,
        median_ms=estimate.value,
        low_ms=estimate.low,
        high_ms=estimate.high,
        note=estimate.model + (f"; operators it does not know: {', '.join(estimate.unknown)}" if estimate.unknown else ""),
    )
