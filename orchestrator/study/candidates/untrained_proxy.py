"""A look at a recipe before its trainings are paid for: the same network, exported untrained, and what it costs."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.building.builder_client import BuilderClient
from orchestrator.errors import DeviceUnavailable, InputError, JobFailed
from orchestrator.measuring.model_info import ModelInfo, for_runtime
from orchestrator.measuring.scoring import Evaluator, estimated
from orchestrator.plugin.runtime_step import runtime_of
from orchestrator.study.candidates.device_pool import DevicePool
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import Foreseen, LatencyResult
from orchestrator.values.target import Target

FOLDER = "sketch.work"
FATAL = ("crash", "timeout", "out-of-memory")
"""Ends of a sketch that the build itself would come to as well."""


class UntrainedProxy:
    """Looks at recipes.

    Args:
        figures: What was measured before.
        trains: Whether a recipe has a step that trains: others are built as fast as they are looked at.
    """

    def __init__(
        self,
        workshop: BuilderClient,
        fleet: DevicePool,
        target: Target,
        trains: Callable[[Recipe], bool],
        figures: MeasurementCache | None = None,
    ) -> None:
        self._workshop, self._fleet, self._target, self.trains = workshop, fleet, target, trains
        self._figures = figures or MeasurementCache(None, None)

    def look(
        self, recipe: Recipe, folder: Path, baseline: Path | None, *, timeout_s: float
    ) -> tuple[Foreseen | None, float, float]:
        """What the untrained network costs, the seconds that looking took now, and those that it took when it was first done.

        Args:
            baseline: The original's file, which a latency is measured beside.

        None where a step cannot do without the training: the build itself decides then.

        Raises:
            JobFailed: it crashed, hung or outgrew its memory, as the build would.
            EnvironmentFailure: the machine failed, not the candidate.
        """
        start, scratch = time.monotonic(), folder / FOLDER
        try:
            sketch = self._workshop.sketch(recipe, scratch, timeout_s=timeout_s)
            self._figures.notes += sketch.notes
            if sketch.model is None:
                return None, time.monotonic() - start, time.monotonic() - start
            model = for_runtime(sketch.model, runtime_of(recipe))
            latency, timing_s = self._latency(model, baseline)
            foreseen = Foreseen(size_bytes=model.size_bytes, macs=model.macs, latency=latency)
        except InputError:
            return None, time.monotonic() - start, time.monotonic() - start
        except JobFailed as error:
            if error.kind in FATAL:
                raise
            return None, time.monotonic() - start, time.monotonic() - start
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        took = time.monotonic() - start
        return foreseen, took, sketch.took_s + timing_s if sketch.reused else took

    def _latency(self, model: ModelInfo, baseline: Path | None) -> tuple[LatencyResult | None, float]:
        """The estimate where there is one, for it costs nothing; else a short measurement, and the seconds that it took."""
        if model.estimate is not None:
            return estimated(model.estimate, self._target), 0.0
        if baseline is None:
            return None, 0.0

        def briefly(evaluator: Evaluator) -> tuple[LatencyResult, float]:
            return self._figures.briefly(evaluator, model, baseline)

        try:
            return self._fleet.start(self._fleet.turn(), briefly).result()
        except DeviceUnavailable:
            return None, 0.0
