"""recipe.toml: all that is needed to make one candidate again."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import tomli_w
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError
from orchestrator.study.request import SearchRequest
from orchestrator.values.recipe import Recipe, Step
from orchestrator.values.results import StepResult
from orchestrator.values.task import TaskDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeFile:
    """A recipe with its model, data and target.

    Attributes:
        weights_digest, data_digest: Of the model and the data that the recipe was made for.
        model_digest: SHA-256 of the exported file that it gave then.
    """

    schema: Literal[1]
    id: str
    target: str
    runtime: str
    threads: int
    model: str
    data: str
    metric: str
    seed: int
    weights_digest: str
    data_digest: str
    model_digest: str
    steps: tuple[StepResult, ...] = ()
    loss: str | None = None
    student: str | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return Recipe(
            steps=tuple(
                Step(method=s.method, version=s.version, parameters=MappingProxyType(dict(s.parameters))) for s in self.steps
            )
        )


_ADAPTER = TypeAdapter(RecipeFile)


def recipe_text(
    identifier: str, steps: list[StepResult], request: SearchRequest, task: TaskDescription, model_digest: str
) -> str:
    """The text of a recipe.toml."""
    file = RecipeFile(
        schema=1,
        id=identifier,
        target=request.target_reference,
        runtime=request.target.runtime,
        threads=request.target.threads,
        model=request.model,
        data=request.data,
        metric=request.metric or task.metric,
        loss=request.loss,
        student=request.student,
        seed=request.seed,
        weights_digest=task.weights_digest,
        data_digest=task.data_digest,
        model_digest=model_digest,
        steps=tuple(steps),
    )
    content: dict[str, Any] = _ADAPTER.dump_python(file, mode="json", exclude_none=True)
    return tomli_w.dumps(content)


def read_recipe(path: Path) -> RecipeFile:
    """A recipe.toml.

    Raises:
        InputError: it is missing, no TOML, or breaks the schema; one line.
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
