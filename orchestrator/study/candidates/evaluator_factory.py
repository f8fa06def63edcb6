"""Construction of a run's CandidateEvaluator from its context and its task."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.paths import laid_out
from orchestrator.building.store import Store
from orchestrator.errors import InputError
from orchestrator.measuring.scoring import Evaluator
from orchestrator.measuring.simulated import Simulation
from orchestrator.plugin.method import Need
from orchestrator.study.candidates.context import RunContext
from orchestrator.study.candidates.evaluator import CandidateEvaluator
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.study.candidates.simulated_latency import SimulatedLatency
from orchestrator.study.candidates.untrained_proxy import UntrainedProxy
from orchestrator.study.run.request import RunState
from orchestrator.values.recipe import Recipe

LEAST_ANSWER_S = 30.0


def create_evaluator(
    context: RunContext, state: RunState, builder: BuilderClient, cache: MeasurementCache, left_s: Callable[[], float]
) -> tuple[CandidateEvaluator, SimulatedLatency]:
    """Return the evaluator of candidates, with its simulator.

    Args:
        context: The run.
        state: The state of the run.
        builder: The run's builder process.
        cache: Measurements of earlier runs, which uses the run's store from now on.
        left_s: Returns the seconds that are left for an answer of a model.

    Raises:
        InputError: The profile cannot simulate the target.
    """
    run, request, registry, pool = context.run, context.request, context.registry, context.pool
    names = [spec.name for spec in state.task.inputs]
    inputs: dict[str, Mapping[str, Path]] = {
        split: {name: laid_out(run.data, split, k) for k, name in enumerate(names)}
        for split in ("validation", "test")
        if split in state.task.examples
    }
    bounds: dict[str, Any] = {
        "inputs": inputs["validation"],
        "most_s": max(LEAST_ANSWER_S, request.candidate_timeout_s),
        "memory_bytes": request.memory_bytes,
        "left_s": left_s,
    }
    alternatives = [registry.runtimes()[name] for name in request.target.alternatives]
    pool.equip(
        lambda member: Evaluator(
            replace(request.target, device=member.reference),
            context.runtime,
            member.device,
            seed=request.options.seed,
            alternatives=alternatives,
            **bounds,
        )
    )
    simulator = SimulatedLatency(_simulation(context, state, bounds))
    cache.use(
        Store(Path(request.store), bound=request.store_bytes, note=cache.notes.append) if request.store else None,
        state.task.data_digest,
    )

    def proxy_is_exact(recipe: Recipe) -> bool:
        """Return True if a recipe trains, and its untrained network is as large and as fast as the trained one."""
        methods = [registry.methods()[step.method] for step in recipe.steps]
        return any(Need.TRAIN in method.needs for method in methods) and not any(method.learns_structure for method in methods)

    evaluator = CandidateEvaluator(
        builder,
        pool,
        run,
        runtime=request.target.runtime,
        inputs=inputs,
        progress=context.events.progress,
        simulator=simulator,
        proxy=UntrainedProxy(builder, pool, request.target, proxy_is_exact, cache),
        cache=cache,
    )
    return evaluator, simulator


def _simulation(context: RunContext, state: RunState, bounds: Mapping[str, Any]) -> Simulation | None:
    if context.simulated is None:
        return None
    target = context.request.target
    constants = target.profile.simulation(context.runtime.name, context.simulated.cpu())
    if constants is None:
        raise InputError(f"profile '{target.profile.name}' has no constants for {context.runtime.name} on {target.simulator}")
    shapes = {spec.name: (1, *spec.shape) for spec in state.task.inputs}
    return Simulation(target, context.runtime, context.simulated, constants, shapes=shapes, **bounds)
