"""recipe.toml: everything that is needed to rebuild one candidate."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import tomli_w
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError
from orchestrator.study.run.request import SearchRequest
from orchestrator.values.recipe import Recipe, Step
from orchestrator.values.results import StepResult
from orchestrator.values.task import TaskDescription, TaskSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeFile:
    """A recipe with its task and target.

    Attributes:
        target: Name or file of the hardware profile, as given.
        task: The task that the recipe was built for; `metric` is set.
        weights_digest, data_digest: SHA-256 of the model's weights and of the data.
        model_digest: SHA-256 of the exported file.
    """

    schema: Literal[1]
    id: str
    target: str
    runtime: str
    threads: int
    seed: int
    task: TaskSpec
    weights_digest: str
    data_digest: str
    model_digest: str
    steps: tuple[StepResult, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return Recipe(
            steps=tuple(
                Step(method=s.method, version=s.version, parameters=MappingProxyType(dict(s.parameters))) for s in self.steps
            )
        )


_ADAPTER = TypeAdapter(RecipeFile)


def recipe_text(
    identifier: str, steps: list[StepResult], request: SearchRequest, task: TaskDescription, model_digest: str
) -> str:
    """Return the text of a recipe.toml."""
    file = RecipeFile(
        schema=1,
        id=identifier,
        target=request.options.target,
        runtime=request.target.runtime,
        threads=request.target.threads,
        seed=request.options.seed,
        task=replace(task.spec, metric=task.spec.metric or task.metric),
        weights_digest=task.weights_digest,
        data_digest=task.data_digest,
        model_digest=model_digest,
        steps=tuple(steps),
    )
    content: dict[str, Any] = _ADAPTER.dump_python(file, mode="json", exclude_none=True)
    return tomli_w.dumps(content)


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe.toml.

    Raises:
        InputError: The file is missing, not TOML, or violates the schema.
    """
    try:
        file: RecipeFile = _ADAPTER.validate_python(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"recipe '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe '{path}' is no valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"recipe '{path}', key '{'.'.join(map(str, first['loc']))}': {first['msg']}") from None
    return file
