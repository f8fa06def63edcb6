"""A start from earlier runs on the same model: their candidates are the first to be tried, whatever target they were made for.

What an earlier run built is in the store, and is not built again; what it measured on another target or machine is measured here.
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
    """An earlier run's results.

    Raises:
        InputError: there are none, or they are damaged.
    """
    try:
        return read_results(Path(path))
    except InputError as error:
        raise InputError(f"--warm-start: {error}") from None


def first_recipes(
    paths: Sequence[str], task: TaskDescription, space: SearchSpace, *, trials: int | None, share: float
) -> tuple[list[Recipe], list[str]]:
    """The recipes of earlier runs that fit this search, those of their fronts first; and what the user should know.

    Args:
        paths: Run directories.
        trials: The run's budget; None: not limited.
        share: At most this share of the budget is spent on them.

    Raises:
        InputError: a run cannot be read, or is of another model or other data.
    """
    found: dict[str, Recipe] = {}
    notes = []
    for path in paths:
        run = read_earlier(path)
        if run.task.digest != task.digest:
            raise InputError(f"--warm-start: '{path}' is a run of another model or other data ({run.task.name})")
        recipes = _ordered(run)
        fitting = [(recipe, made) for recipe in recipes if (made := space.fitted(recipe)) is not None]
        found |= {made.digest: made for _, made in fitting if made.digest not in found}
        moved = sum(recipe != made for recipe, made in fitting)
        note = f"{len(fitting)} of the {len(recipes)} models of {path} are tried first"
        note += f", {moved} of them with numbers moved into this search's ranges" if moved else ""
        less = "; the others have methods or choices that this search does not offer"
        notes.append(note + (less if len(fitting) < len(recipes) else ""))
    kept = list(found.values())
    most = len(kept) if trials is None else max(1, int(share * trials))
    if len(kept) > most:
        notes.append(f"{most} of them, the best, for the search is to have trials of its own")
    return kept[:most], notes


def _ordered(run: RunResult) -> list[Recipe]:
    """The complete candidates of a run: the recommended one, the front, then the others as they came."""
    complete = {c.id: c for c in run.candidates if c.state == "complete"}
    names = [*([run.recommended] if run.recommended else []), *run.front, *complete]
    return [
        Recipe.from_json([{"method": s.method, "version": s.version, "parameters": s.parameters} for s in complete[name].recipe])
        for name in dict.fromkeys(names)
        if name in complete
    ]
