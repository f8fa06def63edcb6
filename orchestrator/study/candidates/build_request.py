"""The build worker of a run: what it prepares, and which methods take part."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.building.builder_client import BuilderClient
from orchestrator.building.protocol import PrepareRequest
from orchestrator.plugin.registry import Registry
from orchestrator.study.request import RunState, SearchRequest
from orchestrator.study.run.directory import RunDirectory


def workshop_of(
    request: SearchRequest,
    registry: Registry,
    run: RunDirectory,
    state: RunState | None,
    *,
    progress: Callable[[str, float], None],
    left_s: Callable[[], float] = lambda: math.inf,
) -> BuilderClient:
    """The build worker of this run."""
    prepare = PrepareRequest(
        task=request.options.task,
        target=request.target,
        methods=method_names(request, registry),
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
        progress=progress,
        left_s=left_s,
    )


def method_names(request: SearchRequest, registry: Registry) -> tuple[str, ...]:
    """The methods that take part, in the order of the registry."""
    chosen = []
    for name, method in registry.methods().items():
        if name not in request.methods:
            continue
        if name in request.options.without_methods or ("train" in method.needs and not request.preset.training):
            continue
        chosen.append(name)
    return tuple(chosen)
