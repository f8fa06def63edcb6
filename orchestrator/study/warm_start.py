"""Warm start from earlier runs on the same model: their candidates are tried first, whatever their target was.

Models that an earlier run built are in the store and are not built again; measurements of another target or machine are repeated.
"""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.report.results import read_results
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import RunResult
from orchestrator.values.task import TaskDescription


def read_earlier(path: str) -> RunResult:
    """Return an earlier run's results.

    Raises:
        InputError: They are missing or damaged.
    """
    try:
        return read_results(Path(path))
    except InputError as error:
        raise InputError(f"--warm-start: {error}") from None


def first_recipes(
    paths: Sequence[str], task: TaskDescription, space: SearchSpace, *, trials: int | None, share: float
) -> tuple[list[Recipe], list[str]]:
    """Return the recipes of earlier runs that this search can propose, those of their fronts first, with notes for the user.

    Args:
        paths: Run directories.
        task: The task of this search.
        space: The search space of the run.
        trials: The run's budget; None if it is not limited.
        share: Largest share of the budget that is spent on them.

    Raises:
        InputError: A run cannot be read, or has another model or other data.
    """
    first: dict[str, Recipe] = {}
    notes = []
    for path in paths:
        run = read_earlier(path)
        if run.task.digest != task.digest:
            raise InputError(f"--warm-start: '{path}' is a run of another model or other data ({run.task.name})")
        recipes = _ordered(run)
        fitting = [(recipe, fitted) for recipe in recipes if (fitted := space.fitted(recipe)) is not None]
        first |= {fitted.digest: fitted for _, fitted in fitting if fitted.digest not in first}
        moved = sum(recipe != fitted for recipe, fitted in fitting)
        note = f"{len(fitting)} of the {len(recipes)} models of {path} are tried first"
        note += f", {moved} of them with numbers moved into this search's ranges" if moved else ""
        less = "; the others have methods or choices that this search does not offer"
        notes.append(note + (less if len(fitting) < len(recipes) else ""))
    recipes = list(first.values())
    most = len(recipes) if trials is None else max(1, int(share * trials))
    if len(recipes) > most:
        notes.append(f"{most} of them, the best, for the search is to have trials of its own")
    return recipes[:most], notes


def _ordered(run: RunResult) -> list[Recipe]:
    """Return the complete candidates of a run: the recommended one, the front, then the others in their order."""
    complete = {c.id: c for c in run.candidates if c.state == "complete"}
    names = [*([run.recommended] if run.recommended else []), *run.front, *complete]
    return [complete[name].as_recipe() for name in dict.fromkeys(names) if name in complete]
