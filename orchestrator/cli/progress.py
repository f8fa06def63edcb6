"""The display of a search: the current step, trials, the best candidate so far, time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from orchestrator.report.formatting import recipe_words
from orchestrator.values.results import CandidateResult


class Progress:
    """The state of the display; live on a terminal, otherwise a line for each candidate."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._now, self._done, self._recipe = "starting", 0.0, ""
        self._tried, self._failed = 0, 0
        self._best: CandidateResult | None = None
        self._baseline: CandidateResult | None = None
        self._timeout_s: float | None = None
        self._trials: int | None = None
        self._began, self._elapsed = time.monotonic(), 0.0
        self._spinner = Spinner("dots")

    def __rich__(self) -> Group:
        elapsed = self._elapsed + time.monotonic() - self._began
        share = f" {self._done:.0%}" if self._done else ""
        clock = f"{_clock(elapsed)}" + (f" of {_clock(self._timeout_s)}" if self._timeout_s else "")
        if self._timeout_s:
            clock += f", {_clock(max(0.0, self._timeout_s - elapsed))} left"
        failed = f", {self._failed} failed" if self._failed else ""
        tried = f"{self._tried} of {self._trials}" if self._trials else str(self._tried)
        lines = [Text(f"{tried} candidates tried{failed} · {clock}", style="bold")]
        if self._best is not None:
            lines.append(Text(f"best so far: {self._figures(self._best)}  {recipe_words(self._best.recipe)}", style="green"))
        self._spinner.update(text=Text(f"{self._now}{share}  {self._recipe}", overflow="ellipsis", no_wrap=True))
        return Group(*lines, self._spinner)

    def observe(self, event: dict[str, Any]) -> None:
        """Update the display by an event of the search."""
        self._timeout_s, self._trials = event["timeout_s"], event["trials"]
        self._elapsed, self._began = event["elapsed_s"], time.monotonic()
        kind = event["event"]
        if kind == "progress":
            self._now, self._done = event["what"], event["done"]
        elif kind == "phase":
            self._now, self._done, self._recipe = event["what"], 0.0, ""
            self._line(event["what"])
        elif kind == "notes":
            for note in event["notes"]:
                self._line(f"note: {note}")
        elif kind == "trial":
            self._recipe = event["recipe"]
        elif kind == "baseline":
            self._baseline = event["candidate"]
            self._line(f"the original: {self._figures(event['candidate'])}")
        elif kind == "candidate":
            self._candidate(event)

    def _candidate(self, event: dict[str, Any]) -> None:
        candidate: CandidateResult = event["candidate"]
        self._baseline, self._tried = event["baseline"], event["tried"]
        self._best = event["best"]
        if candidate.failure is not None:
            self._failed += 1
            reason = f"{candidate.state} ({candidate.failure.kind}, {candidate.failure.step}): {candidate.failure.message}"
            self._line(f"{self._tried:>3}  {reason}  {recipe_words(candidate.recipe)}")
        else:
            self._line(f"{self._tried:>3}  {self._figures(candidate)}  {recipe_words(candidate.recipe)}")

    def _figures(self, candidate: CandidateResult) -> str:
        if candidate.quality is None or candidate.artifact is None:
            return candidate.state
        first = candidate.latency[0]
        sign = "~" if first.evidence in ("estimated", "simulated") else ""
        return (
            f"{candidate.quality.validation.value:.4f}  {sign}{first.median_ms:.3g} ms {first.evidence}  "
            f"{candidate.artifact.size_bytes / 1000:.0f} kB"
        )

    def _line(self, text: str) -> None:
        self._console.print(Text(text, overflow="ellipsis", no_wrap=True), soft_wrap=not self._console.is_terminal)


@contextmanager
def progress(*, quiet_stdout: bool) -> Iterator[tuple[Console, Callable[[dict[str, Any]], None]]]:
    """Yield a console and an observer for a search; with `quiet_stdout` everything goes to standard error."""
    console = Console(stderr=quiet_stdout, highlight=False)
    display = Progress(console)
    if not console.is_terminal:
        yield console, display.observe
        return
    with Live(display, console=console, refresh_per_second=8, transient=True):
        yield console, display.observe


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
