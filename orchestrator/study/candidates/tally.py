"""Totals over candidates that a budget needs, updated with every candidate."""

from collections import Counter
from collections.abc import Iterable

from orchestrator.values.results import CandidateResult


class Tally:
    """Totals over candidates: a budget reads them several times a trial.

    Attributes:
        candidates: Number of candidates, the baseline among them.
        complete: Number of complete candidates.
        scoring, measuring: Seconds that the complete ones took in these phases.
        evidence: Number of complete candidates by the evidence of the objective latency.
        files: Number of complete candidates whose file is kept: the front and its near misses.
    """

    def __init__(self, candidates: Iterable[CandidateResult] = ()) -> None:
        self.candidates = self.complete = self.files = 0
        self.scoring = self.measuring = 0.0
        self.evidence: Counter[str] = Counter()
        for candidate in candidates:
            self.add(candidate)

    def add(self, candidate: CandidateResult, times: int = 1) -> None:
        """Count a candidate; `times=-1` removes it."""
        self.candidates += times
        if candidate.state == "complete":
            self.complete += times
            self.scoring += times * candidate.seconds.get("scoring", 0.0)
            self.measuring += times * candidate.seconds.get("measuring", 0.0)
            self.evidence[candidate.latency[0].evidence] += times
            self.files += times * candidate.has_file
