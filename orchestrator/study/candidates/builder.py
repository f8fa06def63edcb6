"""The builder process of a run: its request and its methods."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.protocol import PrepareRequest
from orchestrator.plugin.registry import Registry
from orchestrator.study.candidates.context import RunContext
from orchestrator.study.run.request import RunState, SearchRequest


def builder_for(context: RunContext, state: RunState | None, left_s: Callable[[], float] = lambda: math.inf) -> BuilderClient:
    """Return the client of a run's builder process."""
    request, run = context.request, context.run
    prepare = PrepareRequest(
        task=request.options.task,
        target=request.target,
        methods=method_names(request, context.registry),
        without_plugins=request.options.without_plugins,
        budget=replace(request.budget, epochs=state.epochs if state else request.budget.epochs),
        seed=request.options.seed,
        workspace=str(run.work),
        offers=state is None,
        store=request.store,
        store_bytes=request.store_bytes,
    )
    return BuilderClient(
        prepare,
        memory_bytes=request.memory_bytes,
        folder=Path(request.folder) if Path(request.folder).is_dir() else run.work,
        progress=context.events.progress,
        left_s=left_s,
    )


def method_names(request: SearchRequest, registry: Registry) -> tuple[str, ...]:
    """Return the names of the methods in use, in the order of the registry."""
    return tuple(
        name
        for name, method in registry.methods().items()
        if name in request.methods
        and name not in request.options.without_methods
        and (request.preset.training or "train" not in method.needs)
    )
