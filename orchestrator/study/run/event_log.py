"""Times at which the candidates of a search were finished, from the run's log."""

import json
from datetime import datetime
from pathlib import Path

STARTS = "starts"
"""The first event of every process of a run: the time before it is a pause."""


def finished_s(log: Path) -> dict[str, float]:
    """Return the seconds from the start of the search to the end of each candidate, by id, without pauses before a resume.

    Lines that a loss of power cut short are skipped. A candidate that was finished twice has its last time.
    """
    finished: dict[str, float] = {}
    elapsed, last = 0.0, None
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return finished
    for line in lines:
        try:
            event = json.loads(line)
            now = datetime.fromisoformat(event["time"])
        except (ValueError, KeyError, TypeError):
            continue
        if last is not None and event.get("event") != STARTS:
            elapsed += max(0.0, (now - last).total_seconds())
        last = now
        if event.get("event") in ("candidate", "baseline") and isinstance(event.get("candidate"), str):
            finished[event["candidate"]] = round(elapsed, 1)
    return finished
