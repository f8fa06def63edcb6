"""The runtime as a step: one search tries several runtimes, and the recipe says which one a candidate is for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from orchestrator.errors import Refused
from orchestrator.plugin.method import BuildContext, Method, OnnxMethod
from orchestrator.plugin.parameters import Parameter
from orchestrator.plugin.runtime import Runtime
from orchestrator.values.recipe import ParameterValue, Recipe
from orchestrator.values.target import Target

FAMILY = "runtime"
PREFIX = "on-"


class RunOn(OnnxMethod):
    """Leaves the file as it is: the candidate is timed and scored by another of the target's runtimes than the first.

    Args:
        runtime: That runtime.
        after: The families of all other methods: this is the last step.
    """

    name: str  # type: ignore[misc]
    version = 1
    family = FAMILY
    summary: str  # type: ignore[misc]
    after: frozenset[str]  # type: ignore[misc]
    reads = frozenset[str]()
    usual: ClassVar[bool] = False

    def __init__(self, runtime: Runtime, after: frozenset[str]) -> None:
        self.name, self.after = f"{PREFIX}{runtime.name}", after
        self.summary = f"The candidate runs on {runtime.name}."
        self._runtime = runtime.name

    def legal(self, target: Target) -> tuple[Parameter, ...]:
        """Return no parameters; refuse a runtime that is not among the target's alternatives."""
        if self._runtime not in target.alternatives:
            raise Refused(f"the search is for {target.runtime} alone; name both with --runtime")
        return ()

    def phrase(self, parameters: Mapping[str, ParameterValue]) -> str:
        """Return "on RUNTIME"."""
        return f"on {self._runtime}"

    def transform(self, model: Path, parameters: Mapping[str, ParameterValue], context: BuildContext) -> Path:
        """Return a copy of the file."""
        path = context.workspace / model.name
        path.write_bytes(model.read_bytes())
        return path


def with_runtimes(methods: Mapping[str, Method], runtimes: Iterable[Runtime]) -> dict[str, Method]:
    """Return all methods, and one step for each runtime."""
    families = frozenset(method.family for method in methods.values())
    steps = [RunOn(runtime, families - {FAMILY}) for runtime in runtimes]
    return {**methods, **{step.name: step for step in steps if step.name not in methods}}


def runtime_of(recipe: Recipe) -> str | None:
    """Return the runtime that a recipe names; None for the target's first."""
    last = recipe.steps[-1].method if recipe.steps else ""
    return last.removeprefix(PREFIX) if last.startswith(PREFIX) else None
