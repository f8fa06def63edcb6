"""One candidate from its recipe to its record: built, then measured in processes of its own, then scored."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.building.builder_client import BuilderClient
from orchestrator.errors import DeviceUnavailable, EnvironmentFailure, FailureKind, InputError, JobFailed
from orchestrator.measuring.model_info import ModelInfo, for_runtime
from orchestrator.measuring.scoring import Evaluator, RunValues
from orchestrator.plugin.runtime_step import runtime_of
from orchestrator.study.candidates.device_pool import DevicePool, DeviceTask
from orchestrator.study.candidates.measurement_cache import LATENCY, MODEL, QUALITY, CachedScore, MeasurementCache
from orchestrator.study.candidates.simulated_latency import Hopeless, SimulatedLatency
from orchestrator.study.candidates.untrained_proxy import UntrainedProxy
from orchestrator.study.pareto.dominance import gains
from orchestrator.study.pareto.early_stopping import SKETCH, EarlyStopping
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Failure,
    LatencyResult,
    QualityResult,
    SimulatedOutputs,
    SplitQuality,
    step_results,
)

LEAST_BUILD_S = 5.0  # even if the proxy took almost all of the candidate's time
DEVICE = "device"
"""Step of a failure of the device: `resume` proposes such a candidate again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredModel:
    """Measurements of one model on a device.

    Attributes:
        outputs: Files of the outputs on the validation split; empty if the quality is known.
        seconds: Duration of timing and running, by phase.
        timed_before: True if the latencies come from the cache.
    """

    run: RunValues
    outputs: list[Path]
    seconds: dict[str, float]
    score: CachedScore
    timed_before: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltCandidate:
    """A candidate that is built and is being measured.

    Attributes:
        record: Its record so far.
        measured: Its measurement, in progress.
        timeout_s: Time for scoring.
        began: `time.monotonic()` at the start of the measurement.
    """

    record: CandidateResult
    model: ModelInfo
    measured: DeviceTask[MeasuredModel]
    timeout_s: float
    began: float = field(default_factory=time.monotonic)


class CandidateEvaluator:
    """Builds, measures and scores candidates.

    Args:
        inputs: For each split `{input name: .npy file}`.
        progress: Called with (current work, share done), from the main thread.
        simulator: Replaces a target that is not at hand.
        proxy: Builds untrained proxies of recipes that train; None for none.
    """

    def __init__(
        self,
        builder: BuilderClient,
        pool: DevicePool,
        run: RunDirectory,
        *,
        runtime: str,
        inputs: Mapping[str, Mapping[str, Path]],
        progress: Callable[[str, float], None],
        simulator: SimulatedLatency,
        cache: MeasurementCache,
        proxy: UntrainedProxy | None = None,
    ) -> None:
        self._builder, self._pool, self._run, self._runtime = builder, pool, run, runtime
        self._inputs, self._progress, self._simulator = inputs, progress, simulator
        self._cache, self._proxy = cache, proxy
        cache.judge = builder.judge
        self._baseline: Path | None = None

    def adopt_baseline(self, path: Path, first: LatencyResult) -> None:
        """Measure beside this file, the baseline of a run that is resumed.

        Args:
            path: Its file.
            first: Its objective latency.
        """
        self._baseline = path
        self._pool.trust()
        self._simulator.adopt(path, first.evidence, (first.conditions or {}).get("versions", {}))

    def baseline(self, *, timeout_s: float) -> CandidateResult:
        """Build the original and measure it on every device.

        Raises:
            Interrupted: The user requested a stop.
            EnvironmentFailure: The machine failed, or no device is left.
        """
        record, model = self.build(Recipe(), trial=None, timeout_s=timeout_s)
        if model is None:
            return record
        self._progress("timing", 0.0)
        measured = DeviceTask(lambda: self._measure_baseline(model), concurrent=False)
        built = BuiltCandidate(record=record, model=model, measured=measured, timeout_s=timeout_s)
        candidate = self.finish(built, baseline=None)
        self._baseline = Path(model.path)
        return candidate

    def begin(
        self, recipe: Recipe, *, trial: int | None, timeout_s: float, stopping: EarlyStopping | None = None
    ) -> CandidateResult | BuiltCandidate:
        """Build a recipe and start its measurement on the next device; return the final record if it is not built.

        Args:
            recipe: The recipe to build.
            trial: Number of its trial; None if it has none.
            timeout_s: Seconds that this may take.
            stopping: Decides during the build if the candidate continues; None if it always does.

        Raises:
            Interrupted: The user requested a stop.
            DeviceUnavailable: No device answers within the wait.
            EnvironmentFailure: The machine failed, not the candidate.
        """
        record, model = self.build(recipe, trial=trial, timeout_s=timeout_s, stopping=stopping)
        return record if model is None else self.measure(record, model, timeout_s=timeout_s)

    def build(
        self, recipe: Recipe, *, trial: int | None, timeout_s: float, stopping: EarlyStopping | None = None
    ) -> tuple[CandidateResult, ModelInfo | None]:
        """Return the record so far and the model, or the final record alone if the recipe is not built. See `begin`."""
        folder = self._run.folder(recipe.identifier)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record = CandidateResult(id=recipe.identifier, state="failed", trial=trial, recipe=step_results(recipe))
        start = time.monotonic()

        def building() -> dict[str, float]:
            return {**record.seconds, "building": time.monotonic() - start}

        try:
            record = self._with_proxy(record, recipe, folder, timeout_s, stopping)
            if record.state == "rejected":
                return self._without_files(record, building()), None
            floors = {} if stopping is None else stopping.floors(record)
            left = max(LEAST_BUILD_S, timeout_s - (time.monotonic() - start))
            built = self._builder.build(recipe, folder, timeout_s=left, floors=floors)
        except (JobFailed, InputError) as error:
            return self._without_files(replace(record, failure=_failure(error, "build")), building()), None
        seconds = building()
        if built.training_s:
            seconds["training"] = built.training_s
        self._cache.notes += built.notes
        record = replace(record, rungs=list(built.rungs), seconds=seconds, reused=[MODEL] if built.reused else [])
        if built.stopped is not None:
            step, reason = built.stopped
            failure = Failure(kind="limit", step=step, message=f"it could no longer reach the front: {reason}")
            return self._without_files(replace(record, state="stopped", failure=failure), seconds), None
        return record, built.model and for_runtime(built.model, runtime_of(recipe))

    def measure(self, record: CandidateResult, model: ModelInfo, *, timeout_s: float) -> BuiltCandidate:
        """Start the measurement of a model whose file is in the candidate's folder. See `begin`."""
        member = self._pool.next_device()
        self._progress("timing", 0.0)
        began = time.monotonic()
        task = self._pool.start(member, lambda evaluator: self._measure(evaluator, model, record.id))
        return BuiltCandidate(record=record, model=model, measured=task, timeout_s=timeout_s, began=began)

    def finish(
        self, built: BuiltCandidate, *, baseline: CandidateResult | None, hopeless: Hopeless = lambda _: None
    ) -> CandidateResult:
        """Wait for the measurement, then score and simulate the candidate. Errors of the candidate itself become its failure.

        Args:
            built: A candidate that `begin` or `measure` returned.
            baseline: The original, or None for the original itself.
            hopeless: Returns why a candidate cannot reach the front, so that it is not simulated, or None.

        Raises:
            Interrupted: The user requested a stop.
            EnvironmentFailure: The machine failed, not the candidate.
        """
        record, model, path = built.record, built.model, Path(built.model.path)
        seconds, stage, phase, start = dict(record.seconds), "measure", "measuring", built.began
        try:
            measured = built.measured.result()
            seconds |= measured.seconds
            stage, phase, start = "score", "scoring", time.monotonic()
            self._progress("scoring", 0.0)
            quality = measured.score.quality or self._score(record.id, measured.outputs, "validation", built.timeout_s)
            self._cache.keep_quality(measured.score, quality)
            seconds["scoring"] += time.monotonic() - start
        except (JobFailed, InputError, DeviceUnavailable) as error:  # InputError: the user's metric raised on these outputs
            if record.id == BASELINE and isinstance(error, DeviceUnavailable):
                raise
            seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - start
            return self._without_files(replace(record, failure=_failure(error, stage)), seconds)
        for scratch in self._run.folder(record.id).glob("*.work"):
            shutil.rmtree(scratch, ignore_errors=True)
        self._run.write_samples(record.id, ms=measured.run.samples)
        artifact = ArtifactResult(
            path=str(path.relative_to(self._run.path)),
            digest=model.digest,
            size_bytes=model.size_bytes,
            runtime=model.runtime or self._runtime,
        )
        reused = [*([LATENCY] if measured.timed_before else []), *([QUALITY] if measured.score.quality else [])]
        candidate = replace(
            record,
            state="complete",
            artifact=artifact,
            quality=SplitQuality(validation=quality),
            latency=measured.run.latency,
            peak_memory_bytes=measured.run.peak_memory_bytes,
            energy_mj=measured.run.energy_mj,
            compressed_bytes=model.compressed_bytes,
            macs=model.macs,
            parameters=model.parameters,
            reused=[*record.reused, *reused],
        )
        if self.simulates:
            self._progress("simulating", 0.0)
            start = time.monotonic()
            try:
                candidate = self._simulator.with_latency(candidate, path, hopeless)
            except (JobFailed, InputError) as error:
                return self._without_files(replace(record, failure=_failure(error, "simulate")), seconds)
            seconds["measuring"] += time.monotonic() - start
        if candidate.state == "complete" and baseline is not None:
            candidate = replace(candidate, gains=gains(artifact.size_bytes, candidate.latency, baseline))
        return replace(candidate, seconds=_rounded(seconds))

    @property
    def simulates(self) -> bool:
        """Return True if a simulated CPU replaces the target."""
        return self._simulator.enabled

    def score_simulated(self, candidate: CandidateResult, *, seconds: float, timeout_s: float) -> CandidateResult:
        """Return the candidate with its outputs on the simulated CPU, on as many examples as time allows.

        Raises:
            JobFailed, InputError: It cannot be run or scored.
            DeviceUnavailable: No device answers within the wait.
        """
        artifact = candidate.artifact
        if not self.simulates or artifact is None or artifact.path is None or candidate.simulated_outputs is not None:
            return candidate
        path = self._run.path / artifact.path
        work = self._run.work / f"{candidate.id}.simulated"
        batch = self._builder.inspect(path, timeout_s=timeout_s).batch
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        try:
            inputs, simulated = self._simulator.outputs(
                path, self._inputs["validation"], work, batch=batch, seconds=seconds, most_s=timeout_s
            )
            here = self._pool.run_anywhere(lambda evaluator: evaluator.outputs(path, inputs, work / "here", batch))
            equality = self._simulator.equality(path, simulated, here)
            original = None if candidate.id == BASELINE else self._original_outputs("validation", timeout_s)
            quality, quality_here = (
                self._builder.score(files, original, "validation", timeout_s=timeout_s) for files in (simulated, here)
            )
        finally:
            shutil.rmtree(work, ignore_errors=True)
        outputs = SimulatedOutputs(
            device=self._simulator.device,
            runtime=self._runtime,
            quality=quality,
            quality_here=quality_here,
            largest_difference=equality.difference,
            tolerance=equality.tolerance,
            equal=equality.equal,
        )
        return replace(candidate, simulated_outputs=outputs)

    def score_test(self, candidate: CandidateResult, *, timeout_s: float) -> CandidateResult:
        """Return the candidate with its quality on the test split, which is read nowhere else.

        Raises:
            JobFailed, InputError: It cannot be scored.
            DeviceUnavailable: No device answers within the wait.
        """
        if candidate.quality is None or candidate.artifact is None or candidate.artifact.path is None:
            return candidate
        if candidate.quality.test is not None or "test" not in self._inputs:
            return candidate
        model = self._builder.inspect(self._run.path / candidate.artifact.path, timeout_s=timeout_s)
        model = replace(model, runtime=candidate.artifact.runtime)
        outputs = self._pool.run_anywhere(lambda evaluator: self._outputs(evaluator, model, candidate.id, "test"))
        quality = self._score(candidate.id, outputs, "test", timeout_s)
        return replace(candidate, quality=replace(candidate.quality, test=quality))

    def _without_files(self, record: CandidateResult, seconds: dict[str, float]) -> CandidateResult:
        """Delete the files of a candidate that is not completed, and return its final record."""
        shutil.rmtree(self._run.folder(record.id), ignore_errors=True)
        return replace(record, seconds=_rounded(seconds))

    def _with_proxy(
        self, record: CandidateResult, recipe: Recipe, folder: Path, timeout_s: float, stopping: EarlyStopping | None
    ) -> CandidateResult:
        """Return the record with the untrained network's costs if trainings are long, as rejected if they violate a limit."""
        proxy = self._proxy
        if stopping is None or proxy is None or not proxy.trains(recipe) or not stopping.proxy_pays():
            return record
        self._progress("measuring it untrained", 0.0)
        foreseen, took, uncached_s = proxy.costs(recipe, folder, self._baseline, timeout_s=timeout_s)
        record = replace(record, foreseen=foreseen, seconds={"building": took, "sketching": uncached_s})
        reason = None if foreseen is None else stopping.rejection(record)
        if reason is None:
            return record
        return replace(record, state="rejected", failure=Failure(kind="limit", step=SKETCH, message=reason))

    def _measure(self, evaluator: Evaluator, model: ModelInfo, identifier: str) -> MeasuredModel:
        """Measure a model on a device; in a thread of its own if that is another machine."""
        start = time.monotonic()
        run, timed_before = self._cache.run(evaluator, model, self._baseline)
        timed = time.monotonic()
        score = self._cache.score(evaluator, model, self._baseline, "validation")
        outputs = [] if score.quality else self._outputs(evaluator, model, identifier, "validation")
        seconds = {"measuring": timed - start, "scoring": time.monotonic() - timed}
        return MeasuredModel(run=run, outputs=outputs, seconds=seconds, score=score, timed_before=timed_before)

    def _measure_baseline(self, model: ModelInfo) -> MeasuredModel:
        """Measure the original's times on every device, and its outputs on one of them."""
        start = time.monotonic()
        run, timed_before = self._pool.prove(lambda evaluator: self._cache.run(evaluator, model, None))
        timed = time.monotonic()

        def score_and_outputs(evaluator: Evaluator) -> tuple[CachedScore, list[Path]]:
            score = self._cache.score(evaluator, model, None, "validation")
            if score.quality and not evaluator.device.remote:
                return score, []
            # On a board the outputs are computed in any case: later, when candidates need them, the boards have other work.
            return score, self._outputs(evaluator, model, BASELINE, "validation")

        score, outputs = self._pool.run_anywhere(score_and_outputs)
        seconds = {"measuring": timed - start, "scoring": time.monotonic() - timed}
        return MeasuredModel(run=run, outputs=outputs, seconds=seconds, score=score, timed_before=timed_before)

    def _outputs(self, evaluator: Evaluator, model: ModelInfo, identifier: str, split: str) -> list[Path]:
        folder = self._run.folder(identifier) / f"{split}.work"
        if identifier == BASELINE:
            folder = self._run.work / BASELINE / split  # kept, for the others are compared with them
        try:
            return evaluator.outputs(Path(model.path), self._inputs[split], folder, model.batch, model.runtime)
        except JobFailed as error:
            error.step = error.step or "score"
            raise

    def _score(self, identifier: str, outputs: list[Path], split: str, timeout_s: float) -> QualityResult:
        if identifier == BASELINE:
            return self._builder.score(outputs, None, split, timeout_s=timeout_s)
        quality = self._builder.score(outputs, self._original_outputs(split, timeout_s), split, timeout_s=timeout_s)
        shutil.rmtree(self._run.folder(identifier) / f"{split}.work", ignore_errors=True)
        return quality

    def _original_outputs(self, split: str, timeout_s: float) -> list[Path]:
        """Return the files of the original's outputs; computed now if its own quality came from the cache."""
        folder = self._run.work / BASELINE / split
        if not folder.is_dir() and (path := self._baseline) is not None:
            batch, partial = self._builder.inspect(path, timeout_s=timeout_s).batch, folder.with_name(f"{split}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            self._pool.run_anywhere(lambda evaluator: evaluator.outputs(path, self._inputs[split], partial, batch))
            partial.rename(folder)
        return sorted(folder.glob("output*.npy"), key=lambda p: (len(p.name), p.name))


def _failure(error: JobFailed | InputError | DeviceUnavailable, stage: str) -> Failure:
    if isinstance(error, JobFailed):
        return Failure(kind=failure_kind(error), step=error.step or stage, message=str(error))
    return Failure(kind="error", step=DEVICE if isinstance(error, DeviceUnavailable) else stage, message=str(error))


def failure_kind(error: JobFailed) -> FailureKind:
    """Return the kind of a model's failure.

    Raises:
        EnvironmentFailure: The machine failed and not the model, for example its disk is full.
    """
    if error.kind == "surroundings":
        raise EnvironmentFailure(str(error)) from error
    return "error" if error.kind == "input" else error.kind


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
