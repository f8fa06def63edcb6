"""The untrained proxy of a recipe: the same network, exported before its trainings, and its costs."""

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
"""Failures of a proxy that the build would have too."""


class UntrainedProxy:
    """Builder of untrained proxies.

    Args:
        cache: Measurements of earlier runs.
        trains: Returns True if a recipe trains and its untrained network costs what the trained one does: other recipes are built
            as fast as their proxies.
    """

    def __init__(
        self,
        builder: BuilderClient,
        pool: DevicePool,
        target: Target,
        trains: Callable[[Recipe], bool],
        cache: MeasurementCache,
    ) -> None:
        self._builder, self._pool, self._target, self.trains, self._cache = builder, pool, target, trains, cache

    def costs(
        self, recipe: Recipe, folder: Path, baseline: Path | None, *, timeout_s: float
    ) -> tuple[Foreseen | None, float, float]:
        """Return the untrained network's costs, the seconds that this took now, and those that it took without a cache.

        The costs are None if a step needs the training: then the build itself decides.

        Args:
            recipe: The recipe to build.
            folder: Folder of the candidate.
            baseline: File of the original, which a latency is measured beside.
            timeout_s: Seconds that this may take.

        Raises:
            JobFailed: It crashed, hung or exceeded its memory, as the build would.
            EnvironmentFailure: The machine failed, not the candidate.
        """
        start, scratch = time.monotonic(), folder / FOLDER
        foreseen, uncached_s = None, None
        try:
            sketch = self._builder.sketch(recipe, scratch, timeout_s=timeout_s)
            self._cache.notes += sketch.notes
            if sketch.model is not None:
                model = for_runtime(sketch.model, runtime_of(recipe))
                latency, timing_s = self._latency(model, baseline)
                foreseen = Foreseen(size_bytes=model.size_bytes, macs=model.macs, latency=latency)
                uncached_s = sketch.took_s + timing_s if sketch.reused else None
        except InputError:
            foreseen = None
        except JobFailed as error:
            if error.kind in FATAL:
                raise
            foreseen = None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        took = time.monotonic() - start
        return foreseen, took, took if uncached_s is None else uncached_s

    def _latency(self, model: ModelInfo, baseline: Path | None) -> tuple[LatencyResult | None, float]:
        """Return the estimate if available, otherwise a short measurement and its duration in seconds."""
        if model.estimate is not None:
            return estimated(model.estimate, self._target), 0.0
        if baseline is None:
            return None, 0.0

        def briefly(evaluator: Evaluator) -> tuple[LatencyResult, float]:
            return self._cache.briefly(evaluator, model, baseline)

        try:
            return self._pool.start(self._pool.next_device(), briefly).result()
        except DeviceUnavailable:
            return None, 0.0
