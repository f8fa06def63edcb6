"""One candidate from recipe to record: built, then timed and run in processes of their own, then scored; failing has a reason."""

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
from orchestrator.study.early_stopping import SKETCH, EarlyStopping
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.evidence import MEASURED
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Failure,
    LatencyResult,
    QualityResult,
    SimulatedOutputs,
    SplitQuality,
    StepResult,
)

LEAST_BUILD_S = 5.0  # even where looking at it first took almost all of its time
DEVICE = "device"
"""The step of a failure that is the device's: `resume` tries such a candidate again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredModel:
    """What a device gave for one model.

    Attributes:
        outputs: Files of the outputs on the validation split; none where its quality is known.
        seconds: What timing and running took, by phase.
        scored: What is known of its quality.
        timed_before: Whether the figures are those of an earlier time.
    """

    run: RunValues
    outputs: list[Path]
    seconds: dict[str, float]
    scored: CachedScore
    timed_before: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A candidate that was built and is being measured.

    Attributes:
        record: All that is known so far.
        measured: What comes from the device.
        timeout_s: Time for scoring.
        began: `time.monotonic()` when measuring it did.
    """

    record: CandidateResult
    model: ModelInfo
    measured: DeviceTask[MeasuredModel]
    timeout_s: float
    began: float = field(default_factory=time.monotonic)


class CandidateEvaluator:
    """Makes candidates.

    Args:
        inputs: For each split `{input name: .npy file}`.
        progress: Called with (what is done now, share done), from the main thread.
        simulator: What stands in for a target that is not here.
        sketcher: Looks at recipes that train before they are built.
        figures: What was measured before.
    """

    def __init__(
        self,
        workshop: BuilderClient,
        fleet: DevicePool,
        run: RunDirectory,
        *,
        runtime: str,
        inputs: Mapping[str, Mapping[str, Path]],
        progress: Callable[[str, float], None],
        simulator: SimulatedLatency | None = None,
        sketcher: UntrainedProxy | None = None,
        figures: MeasurementCache | None = None,
    ) -> None:
        self._figures = figures or MeasurementCache(None, None)
        self._figures.judge = workshop.judge
        self._sketcher = sketcher
        self._workshop, self._fleet, self._run, self._runtime = workshop, fleet, run, runtime
        self._inputs, self._progress, self._simulator = inputs, progress, simulator or SimulatedLatency(None)
        self._baseline: Path | None = None

    def adopt_baseline(self, path: Path, first: LatencyResult) -> None:
        """Time against this file: the baseline of a run that is resumed.

        Args:
            first: Its objective latency.
        """
        self._baseline = path
        self._fleet.trust()
        self._simulator.adopt(path, first.evidence, (first.conditions or {}).get("versions", {}))

    def baseline(self, *, timeout_s: float) -> CandidateResult:
        """The original: built, and measured on every board.

        Raises:
            Interrupted: the user asked to stop.
            EnvironmentFailure: the machine failed, or no device is left.
        """
        record, model = self._build(Recipe(), None, timeout_s)
        if model is None:
            return record
        self._progress("timing", 0.0)
        measured = DeviceTask(lambda: self._measure_baseline(model), beside=False)
        made = self.finish(Built(record=record, model=model, measured=measured, timeout_s=timeout_s), baseline=None)
        self._baseline = Path(model.path)
        return made

    def begin(
        self, recipe: Recipe, *, trial: int | None, timeout_s: float, stopping: EarlyStopping | None = None
    ) -> CandidateResult | Built:
        """Build one recipe and begin to measure it on the board whose turn it is; the finished record where it is not built.

        Args:
            stopping: Decides on the way whether it is worth going on; None: it is.

        Raises:
            Interrupted: the user asked to stop.
            DeviceUnavailable: no device is there, after waiting.
            EnvironmentFailure: the machine failed, not the candidate.
        """
        record, model = self.build(recipe, trial=trial, timeout_s=timeout_s, stopping=stopping)
        return record if model is None else self.take_up(record, model, timeout_s=timeout_s)

    def build(
        self, recipe: Recipe, *, trial: int | None, timeout_s: float, stopping: EarlyStopping | None = None
    ) -> tuple[CandidateResult, ModelInfo | None]:
        """The first half of `begin`: the record so far and the model; the finished record alone where it is not built."""
        return self._build(recipe, trial, timeout_s, stopping)

    def take_up(self, record: CandidateResult, model: ModelInfo, *, timeout_s: float) -> Built:
        """The second half of `begin`, for a model whose file lies in the candidate's folder: begin to measure it."""
        board = self._fleet.turn()
        self._progress("timing", 0.0)
        began = time.monotonic()
        task = self._fleet.start(board, lambda evaluator: self._measure(evaluator, model, record.id))
        return Built(record=record, model=model, measured=task, timeout_s=timeout_s, began=began)

    def finish(self, built: Built, *, baseline: CandidateResult | None, hopeless: Hopeless = lambda _: None) -> CandidateResult:
        """Wait for what the device gives, score it, simulate it. Never raises for what the candidate itself does.

        Args:
            hopeless: Why a candidate cannot reach the front, so that it need not be simulated; None: it may.

        Raises:
            Interrupted: the user asked to stop.
            EnvironmentFailure: the machine failed, not the candidate.
        """
        record, model, path = built.record, built.model, Path(built.model.path)
        seconds, stage, start = dict(record.seconds), "measure", built.began
        try:
            measured = built.measured.result()
            seconds |= measured.seconds
            stage, start = "score", time.monotonic()
            self._progress("scoring", 0.0)
            quality = measured.scored.quality or self._score(record.id, measured.outputs, "validation", built.timeout_s)
            self._figures.keep_quality(measured.scored, quality)
            seconds["scoring"] += time.monotonic() - start
        except (JobFailed, InputError, DeviceUnavailable) as error:  # InputError: the user's metric raised on these outputs
            if record.id == BASELINE and isinstance(error, DeviceUnavailable):
                raise
            phase = "measuring" if stage == "measure" else "scoring"
            seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - start
            shutil.rmtree(self._run.folder(record.id), ignore_errors=True)
            return replace(record, failure=_failure(error, stage), seconds=_rounded(seconds))
        for scratch in self._run.folder(record.id).glob("*.work"):
            shutil.rmtree(scratch, ignore_errors=True)
        self._run.write_samples(record.id, ms=measured.run.samples)
        artifact = ArtifactResult(
            path=str(path.relative_to(self._run.path)),
            digest=model.digest,
            size_bytes=model.size_bytes,
            runtime=model.runtime or self._runtime,
        )
        done = replace(
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
            seconds=seconds,
            reused=[
                *record.reused,
                *([LATENCY] if measured.timed_before else []),
                *([QUALITY] if measured.scored.quality else []),
            ],
        )
        if self.simulates:
            self._progress("simulating", 0.0)
            start = time.monotonic()
            try:
                done = self._simulator.with_latency(done, path, hopeless)
            except (JobFailed, InputError) as error:
                shutil.rmtree(self._run.folder(record.id), ignore_errors=True)
                return replace(record, failure=_failure(error, "simulate"), seconds=_rounded(seconds))
            seconds["measuring"] += time.monotonic() - start
            done = replace(done, seconds=seconds)
        if done.state == "complete" and baseline is not None:
            done = replace(done, gains=gains(artifact.size_bytes, done.latency, baseline))
        return replace(done, seconds=_rounded(done.seconds))

    @property
    def simulates(self) -> bool:
        """Whether a simulated CPU stands in for the target."""
        return self._simulator.works

    def score_simulated(self, candidate: CandidateResult, *, seconds: float, timeout_s: float) -> CandidateResult:
        """The candidate with what the target's own kernels give on the simulated CPU, on as many examples as time allows.

        Raises:
            JobFailed, InputError: it cannot be run or scored, with the reason.
            DeviceUnavailable: no device is there, after waiting.
        """
        artifact = candidate.artifact
        if not self.simulates or artifact is None or artifact.path is None or candidate.simulated_outputs is not None:
            return candidate
        path = self._run.path / artifact.path
        work = self._run.work / f"{candidate.id}.simulated"
        batch = self._workshop.inspect(path, timeout_s=timeout_s).batch
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        try:
            part, there = self._simulator.outputs(
                path, self._inputs["validation"], work, batch=batch, seconds=seconds, most_s=timeout_s
            )
            here = self._fleet.somewhere(lambda evaluator: evaluator.outputs(path, part, work / "here", batch))
            alike = self._simulator.equality(path, there, here)
            original = None if candidate.id == BASELINE else self._original_outputs("validation", timeout_s)
            figures = [self._workshop.score(files, original, "validation", timeout_s=timeout_s) for files in (there, here)]
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return replace(
            candidate,
            simulated_outputs=SimulatedOutputs(
                device=self._simulator.device,
                runtime=self._runtime,
                quality=figures[0],
                quality_here=figures[1],
                largest_difference=alike.difference,
                tolerance=alike.tolerance,
                equal=alike.equal,
            ),
        )

    def score_test(self, candidate: CandidateResult, *, timeout_s: float) -> CandidateResult:
        """The candidate with its quality on the test split, which is touched here and nowhere else.

        Raises:
            JobFailed, InputError: it cannot be scored, with the reason.
            DeviceUnavailable: no device is there, after waiting.
        """
        if candidate.quality is None or candidate.artifact is None or candidate.artifact.path is None:
            return candidate
        if candidate.quality.test is not None or "test" not in self._inputs:
            return candidate
        model = self._workshop.inspect(self._run.path / candidate.artifact.path, timeout_s=timeout_s)
        model = replace(model, runtime=candidate.artifact.runtime)
        outputs = self._fleet.somewhere(lambda evaluator: self._outputs(evaluator, model, candidate.id, "test"))
        quality = self._score(candidate.id, outputs, "test", timeout_s)
        return replace(candidate, quality=replace(candidate.quality, test=quality))

    def _build(
        self, recipe: Recipe, trial: int | None, timeout_s: float, stopping: EarlyStopping | None = None
    ) -> tuple[CandidateResult, ModelInfo | None]:
        identifier = recipe.identifier
        folder = self._run.folder(identifier)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record = CandidateResult(
            id=identifier,
            state="failed",
            trial=trial,
            recipe=[StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps],
        )
        start = time.monotonic()
        try:
            record = self._looked_at(record, recipe, folder, timeout_s, stopping)
            if record.state == "rejected":
                shutil.rmtree(folder, ignore_errors=True)
                return replace(record, seconds=_rounded({**record.seconds, "building": time.monotonic() - start})), None
            floors = {} if stopping is None else stopping.floors(record)
            left = max(LEAST_BUILD_S, timeout_s - (time.monotonic() - start))
            built = self._workshop.build(recipe, folder, timeout_s=left, floors=floors)
        except (JobFailed, InputError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            seconds = {**record.seconds, "building": time.monotonic() - start}
            return replace(record, failure=_failure(error, "build"), seconds=_rounded(seconds)), None
        seconds = {**record.seconds, "building": time.monotonic() - start}
        if built.training_s:
            seconds["training"] = built.training_s
        self._figures.notes += built.notes
        model = built.model and for_runtime(built.model, runtime_of(recipe))
        record = replace(record, rungs=list(built.rungs), seconds=seconds, reused=[MODEL] if built.reused else [])
        if built.stopped is not None:
            shutil.rmtree(folder, ignore_errors=True)
            step, why = built.stopped
            failure = Failure(kind="limit", step=step, message=f"it could no longer reach the front: {why}")
            return replace(record, state="stopped", failure=failure, seconds=_rounded(seconds)), None
        return record, model

    def _looked_at(
        self, record: CandidateResult, recipe: Recipe, folder: Path, timeout_s: float, stopping: EarlyStopping | None
    ) -> CandidateResult:
        """The record with what its untrained network costs, where trainings are long; as rejected where that breaks a limit."""
        sketcher = self._sketcher
        if stopping is None or sketcher is None or not sketcher.trains(recipe) or not stopping.worth_a_look():
            return record
        self._progress("looking at it untrained", 0.0)
        foreseen, took, at_first = sketcher.look(recipe, folder, self._baseline, timeout_s=timeout_s)
        record = replace(record, foreseen=foreseen, seconds={"building": took, "sketching": at_first})
        if foreseen is None or (reason := stopping.rejects(record)) is None:
            return record
        failure = Failure(kind="limit", step=SKETCH, message=reason)
        return replace(record, state="rejected", failure=failure, seconds=_rounded(record.seconds))

    def _measure(self, evaluator: Evaluator, model: ModelInfo, identifier: str) -> MeasuredModel:
        """On the device; in a thread of its own where that is another machine."""
        start = time.monotonic()
        run, before = self._figures.run(evaluator, model, self._baseline)
        timed = time.monotonic()
        scored = self._figures.scored(evaluator, model, self._baseline, "validation")
        outputs = [] if scored.quality else self._outputs(evaluator, model, identifier, "validation")
        seconds = {"measuring": timed - start, "scoring": time.monotonic() - timed}
        return MeasuredModel(run=run, outputs=outputs, seconds=seconds, scored=scored, timed_before=before)

    def _measure_baseline(self, model: ModelInfo) -> MeasuredModel:
        """Its times on every board, its outputs from one of them."""
        start = time.monotonic()
        run, before = self._fleet.prove(lambda evaluator: self._figures.run(evaluator, model, None))
        timed = time.monotonic()

        def known(evaluator: Evaluator) -> tuple[CachedScore, list[Path]]:
            scored = self._figures.scored(evaluator, model, None, "validation")
            if scored.quality and not evaluator.device.remote:
                return scored, []
            # On a board its outputs are made in any case: later, when candidates need them, the boards have other work.
            return scored, self._outputs(evaluator, model, BASELINE, "validation")

        scored, outputs = self._fleet.somewhere(known)
        seconds = {"measuring": timed - start, "scoring": time.monotonic() - timed}
        return MeasuredModel(run=run, outputs=outputs, seconds=seconds, scored=scored, timed_before=before)

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
        own = identifier == BASELINE
        original = None if own else self._original_outputs(split, timeout_s)
        quality = self._workshop.score(outputs, original, split, timeout_s=timeout_s)
        if not own:
            shutil.rmtree(self._run.folder(identifier) / f"{split}.work", ignore_errors=True)
        return quality

    def _original_outputs(self, split: str, timeout_s: float) -> list[Path]:
        """The original's outputs; made now where its own quality was known and nobody needed them yet."""
        kept = self._run.work / BASELINE / split
        if not kept.is_dir() and (path := self._baseline) is not None:
            batch, made = self._workshop.inspect(path, timeout_s=timeout_s).batch, kept.with_name(f"{split}.partial")
            shutil.rmtree(made, ignore_errors=True)
            self._fleet.somewhere(lambda evaluator: evaluator.outputs(path, self._inputs[split], made, batch))
            made.rename(kept)
        return sorted(kept.glob("output*.npy"), key=lambda p: (len(p.name), p.name))


def _failure(error: JobFailed | InputError | DeviceUnavailable, stage: str) -> Failure:
    if isinstance(error, DeviceUnavailable):
        return Failure(kind="error", step=DEVICE, message=str(error))
    if isinstance(error, InputError):
        return Failure(kind="error", step=stage, message=str(error))
    return Failure(kind=kind_of(error), step=error.step or stage, message=str(error))


def kind_of(error: JobFailed) -> FailureKind:
    """How a model failed.

    Raises:
        EnvironmentFailure: not the model did, but the machine: its disk is full, ...
    """
    if error.kind == "surroundings":
        raise EnvironmentFailure(str(error)) from error
    return "error" if error.kind == "input" else error.kind


def gains(size_bytes: int, latency: list[LatencyResult], baseline: CandidateResult) -> bool:
    """Whether the file is smaller or the time shorter than the baseline's, beyond noise where it was measured."""
    if baseline.artifact is not None and size_bytes < baseline.artifact.size_bytes:
        return True
    first = latency[0]
    if first.ratio is not None or first.evidence in MEASURED:
        return first.ratio is not None and first.ratio.high < 1
    return first.median_ms < baseline.latency[0].median_ms


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
