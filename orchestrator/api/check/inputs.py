"""The inputs of a check: a model file, and the settings of its recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.plugin.runtime_step import runtime_of
from orchestrator.report.results import read_results
from orchestrator.study.run.recipe_file import read_recipe

RECIPE, RESULTS = "recipe.toml", "results.json"
BESIDE_A_MODEL = (".md", ".toml", ".json", ".txt", ".html")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """An input of a check.

    Attributes:
        given: The path as given.
        model: The model file.
        said: Settings of its recipe: "data", "metric", "target", "runtime", "threads"; empty without one.
    """

    given: Path
    model: Path
    said: Mapping[str, Any] = field(default_factory=dict)


def read_side(path: Path, option: str) -> ModelInput:
    """Read an input: a model file, a candidate's folder, or a run directory (its recommended model).

    Raises:
        InputError: It is none of these, or a run without a recommendation.
    """
    if path.is_file():
        return ModelInput(given=path, model=path)
    if not path.is_dir():
        raise InputError(f"{option}: there is no file or folder '{path}'")
    folder = path
    if (path / RESULTS).is_file():
        run = read_results(path)
        if run.recommended is None:
            raise InputError(f"{option}: run '{path}' recommends no model ({run.reason}); give one of its folders front/<id>")
        folder = path / "recommended"
    if not (folder / RECIPE).is_file():
        raise InputError(f"{option}: '{folder}' holds neither {RECIPE} (a candidate's folder) nor {RESULTS} (a run directory)")
    recipe = read_recipe(folder / RECIPE)
    said = {"data": recipe.task.data, "metric": recipe.task.metric, "target": recipe.target, "threads": recipe.threads}
    said["runtime"] = runtime_of(recipe.recipe) or recipe.runtime
    return ModelInput(given=path, model=_model(folder, option), said=said)


def _model(folder: Path, option: str) -> Path:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix not in BESIDE_A_MODEL)
    named = [p for p in files if p.stem == "model"] or files
    onnx = [p for p in named if p.suffix == ".onnx"]
    chosen = named if len(named) == 1 else onnx
    if len(chosen) != 1:
        what = f"{len(named)} files that may be the model" if named else "no model file"
        raise InputError(f"{option}: '{folder}' has {what}; name the file itself")
    return chosen[0]


def agreed(name: str, baseline: ModelInput, candidate: ModelInput) -> Any:
    """Return the recipes' common setting `name`, or None if no recipe has it.

    Raises:
        InputError: They differ.
    """
    ours, theirs = candidate.said.get(name), baseline.said.get(name)
    if ours is not None and theirs is not None and ours != theirs:
        raise InputError(
            f"the recipes of '{baseline.given}' and '{candidate.given}' name different {name}: '{theirs}' and '{ours}'; "
            f"say which with --{name}"
        )
    return theirs if ours is None else ours
