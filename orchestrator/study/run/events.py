"""Events of a search, which its log and its observer receive."""

from collections.abc import Callable
from typing import Any

from orchestrator.values.recipe import Recipe
from orchestrator.values.results import CandidateResult


class SearchEvents:
    """Emitter of events.

    Args:
        sink: Called with the fields of each event; `event` is its kind.
    """

    def __init__(self, sink: Callable[[dict[str, Any]], None]) -> None:
        self._sink = sink

    def phase(self, text: str) -> None:
        """Report what the search does from now on."""
        self._sink({"event": "phase", "what": text})

    def progress(self, text: str, done: float) -> None:
        """Report the share of a piece of work that is done, 0 to 1."""
        self._sink({"event": "progress", "what": text, "done": done})

    def notes(self, *texts: str) -> None:
        """Report facts that the user should know and that are no errors."""
        self._sink({"event": "notes", "notes": list(texts)})

    def trial(self, number: int | None, recipe: Recipe) -> None:
        """Report that a recipe is built now."""
        self._sink({"event": "trial", "number": number, "id": recipe.identifier, "recipe": str(recipe)})

    def baseline(self, candidate: CandidateResult) -> None:
        """Report that the original is measured."""
        self._sink({"event": "baseline", "candidate": candidate})

    def candidate(
        self, candidate: CandidateResult, *, tried: int, baseline: CandidateResult, best: CandidateResult | None
    ) -> None:
        """Report that a candidate has ended.

        Args:
            candidate: The candidate.
            tried: Number of candidates so far.
            baseline: The original.
            best: The candidate that is recommended now.
        """
        self._sink({"event": "candidate", "candidate": candidate, "tried": tried, "baseline": baseline, "best": best})
