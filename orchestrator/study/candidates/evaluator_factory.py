"""Construction of a run's CandidateEvaluator from its request and its task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.paths import laid_out
from orchestrator.building.store import Store
from orchestrator.errors import InputError
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.simulated import Simulation
from orchestrator.plugin.device import SimulatedDevice
from orchestrator.plugin.method import Need
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.runtime import Runtime
from orchestrator.study.candidates.device_pool import DevicePool, PooledDevice
from orchestrator.study.candidates.evaluator import CandidateEvaluator
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.study.candidates.simulated_latency import SimulatedLatency
from orchestrator.study.candidates.untrained_proxy import UntrainedProxy
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.request import RunState, SearchRequest
from orchestrator.values.recipe import Recipe

LEAST_ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorFactory:
    """What the evaluation of candidates needs.

    Attributes:
        simulated: The CPU that replaces a target that is not at hand, or None.
        cache: Measurements of earlier runs; uses the run's store once there is an evaluator.
        left_s: Returns the seconds that are left for an answer of a model.
        progress: Called with (current work, share done).
    """

    run: RunDirectory
    request: SearchRequest
    registry: Registry
    runtime: Runtime
    pool: DevicePool
    simulated: SimulatedDevice | None
    cache: MeasurementCache
    left_s: Callable[[], float]
    progress: Callable[[str, float], None]

    def create(self, state: RunState, builder: BuilderClient) -> tuple[CandidateEvaluator, SimulatedLatency]:
        """Return the evaluator of candidates, with its simulator.

        Raises:
            InputError: The profile cannot simulate the target.
        """
        request, names = self.request, [spec.name for spec in state.task.inputs]
        inputs: dict[str, Mapping[str, Path]] = {
            split: {name: laid_out(self.run.data, split, k) for k, name in enumerate(names)}
            for split in ("validation", "test")
            if split in state.task.examples
        }
        self.pool.equip(lambda member: self._device_evaluator(member, inputs["validation"]))
        simulator = SimulatedLatency(self._simulation(state, inputs["validation"]))
        store = Store(Path(request.store), bound=request.store_bytes, note=self.cache.notes.append) if request.store else None
        self.cache.use(store, state.task.data_digest)
        evaluator = CandidateEvaluator(
            builder,
            self.pool,
            self.run,
            runtime=request.target.runtime,
            inputs=inputs,
            progress=self.progress,
            simulator=simulator,
            proxy=UntrainedProxy(builder, self.pool, request.target, self._proxy_is_exact, self.cache),
            cache=self.cache,
        )
        return evaluator, simulator

    @property
    def _most_s(self) -> float:
        return max(LEAST_ANSWER_S, self.request.candidate_timeout_s)

    def _device_evaluator(self, member: PooledDevice, inputs: Mapping[str, Path]) -> Evaluator:
        request = self.request
        return Evaluator(
            replace(request.target, device=member.reference),
            self.runtime,
            member.device,
            inputs=inputs,
            most_s=self._most_s,
            memory_bytes=request.memory_bytes,
            seed=request.options.seed,
            left_s=self.left_s,
            alternatives=[self.registry.runtimes()[name] for name in request.target.alternatives],
        )

    def _proxy_is_exact(self, recipe: Recipe) -> bool:
        """Return True if a recipe trains, and its untrained network is as large and as fast as the trained one."""
        methods = [self.registry.methods()[step.method] for step in recipe.steps]
        return any(Need.TRAIN in method.needs for method in methods) and not any(method.learns_structure for method in methods)

    def _simulation(self, state: RunState, inputs: Mapping[str, Path]) -> Simulation | None:
        if self.simulated is None:
            return None
        target = self.request.target
        constants = target.profile.simulation(self.runtime.name, self.simulated.cpu())
        if constants is None:
            raise InputError(f"profile '{target.profile.name}' has no constants for {self.runtime.name} on {target.simulator}")
        return Simulation(
            target,
            self.runtime,
            self.simulated,
            constants,
            inputs=inputs,
            shapes={spec.name: (1, *spec.shape) for spec in state.task.inputs},
            most_s=self._most_s,
            memory_bytes=self.request.memory_bytes,
            left_s=self.left_s,
        )
