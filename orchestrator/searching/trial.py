"""One candidate from recipe to record: built, then scored and timed in processes of their own; whatever fails is its reason."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.building.workshop import Workshop
from orchestrator.errors import InputError, SurroundingsError
from orchestrator.measuring.evaluation import Evaluator
from orchestrator.measuring.inspection import Inspection
from orchestrator.plugin.device import JobFailed
from orchestrator.searching.run_directory import RunDirectory
from orchestrator.values.evidence import MEASURED
from orchestrator.values.recipe import BASELINE, Recipe
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Failure,
    LatencyResult,
    QualityResult,
    SplitQuality,
    StepResult,
)


class Laboratory:
    """Makes candidates.

    Args:
        inputs: For each split `{input name: .npy file}`.
        progress: Called with (what is done now, share done).
    """

    def __init__(
        self,
        workshop: Workshop,
        evaluator: Evaluator,
        run: RunDirectory,
        *,
        inputs: Mapping[str, Mapping[str, Path]],
        progress: Callable[[str, float], None],
    ) -> None:
        self._workshop, self._evaluator, self._run = workshop, evaluator, run
        self._inputs, self._progress = inputs, progress
        self._baseline: Path | None = None

    def make(self, recipe: Recipe, *, baseline: CandidateResult | None, trial: int | None, timeout_s: float) -> CandidateResult:
        """Build, score and time one recipe. Never raises for what the candidate itself does.

        Raises:
            Interrupted: the user asked to stop.
            SurroundingsError: the machine failed, not the candidate.
        """
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
        seconds: dict[str, float] = {}
        stage = "build"
        try:
            start = time.monotonic()
            model = self._workshop.build(recipe, folder, timeout_s=timeout_s)
            path = Path(model.path)
            seconds["building"] = time.monotonic() - start

            stage, start = "measure", time.monotonic()
            self._progress("timing", 0.0)
            run = self._evaluator.run(model, self._baseline)
            seconds["measuring"] = time.monotonic() - start

            stage, start = "score", time.monotonic()
            self._progress("scoring", 0.0)
            quality = self._score(identifier, model, "validation", timeout_s)
            seconds["scoring"] = time.monotonic() - start
        except (JobFailed, InputError) as error:  # InputError: the user's metric raised on this candidate's outputs
            shutil.rmtree(folder, ignore_errors=True)
            return replace(record, failure=_failure(error, stage), seconds=_rounded(seconds))
        for scratch in folder.glob("*.work"):
            shutil.rmtree(scratch, ignore_errors=True)
        if baseline is None:
            self._baseline = path
        artifact = ArtifactResult(
            path=str(path.relative_to(self._run.path)),
            digest=model.digest,
            size_bytes=model.size_bytes,
            runtime=self._evaluator.target.runtime,
        )
        return replace(
            record,
            state="complete",
            artifact=artifact,
            quality=SplitQuality(validation=quality),
            latency=run.latency,
            peak_memory_bytes=run.peak_memory_bytes,
            compressed_bytes=model.compressed_bytes,
            macs=model.macs,
            parameters=model.parameters,
            gains=None if baseline is None else gains(artifact.size_bytes, run.latency, baseline),
            seconds=_rounded(seconds),
        )

    def score_test(self, candidate: CandidateResult, *, timeout_s: float) -> CandidateResult:
        """The candidate with its quality on the test split, which is touched here and nowhere else.

        Raises:
            JobFailed, InputError: it cannot be scored, with the reason.
        """
        if candidate.quality is None or candidate.artifact is None or candidate.artifact.path is None:
            return candidate
        if candidate.quality.test is not None or "test" not in self._inputs:
            return candidate
        model = self._workshop.inspect(self._run.path / candidate.artifact.path, timeout_s=timeout_s)
        quality = self._score(candidate.id, model, "test", timeout_s)
        return replace(candidate, quality=replace(candidate.quality, test=quality))

    def adopt_baseline(self, path: Path) -> None:
        """Time against this file: the baseline of a run that is resumed."""
        self._baseline = path

    def _score(self, identifier: str, model: Inspection, split: str, timeout_s: float) -> QualityResult:
        kept = self._run.work / BASELINE / split
        original = sorted(kept.glob("output*.npy"), key=lambda p: (len(p.name), p.name))
        own = identifier == BASELINE
        folder = kept if own else self._run.folder(identifier) / f"{split}.work"
        outputs = self._evaluator.outputs(Path(model.path), self._inputs[split], folder, model.batch)
        quality = self._workshop.score(outputs, None if own else original, split, timeout_s=timeout_s)
        if not own:
            shutil.rmtree(folder, ignore_errors=True)
        return quality


def _failure(error: JobFailed | InputError, stage: str) -> Failure:
    if isinstance(error, JobFailed) and error.kind == "surroundings":
        raise SurroundingsError(str(error)) from error
    if isinstance(error, InputError):
        return Failure(kind="error", step=stage, message=str(error))
    kind = error.kind
    if kind == "input" or kind == "surroundings":
        kind = "error"
    return Failure(kind=kind, step=error.step or stage, message=str(error))


def gains(size_bytes: int, latency: list[LatencyResult], baseline: CandidateResult) -> bool:
    """Whether the file is smaller or the time shorter than the baseline's, beyond noise where it was measured."""
    if baseline.artifact is not None and size_bytes < baseline.artifact.size_bytes:
        return True
    first = latency[0]
    if first.evidence in MEASURED:
        return first.ratio is not None and first.ratio.high < 1
    return first.median_ms < baseline.latency[0].median_ms


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
