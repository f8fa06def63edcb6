"""When each candidate of a search was finished, read off the run's log."""

import json
from datetime import datetime
from pathlib import Path

STARTS = "starts"
"""The first event of every process of a run: what lies before it is a pause."""


def finished_s(log: Path) -> dict[str, float]:
    """Seconds from the start of the search to the end of each candidate, by id; pauses between a stop and a resume left out.

    Lines that a loss of power cut short are passed over. A candidate that was finished twice has its last time.
    """
    found: dict[str, float] = {}
    elapsed, last = 0.0, None
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
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
            found[event["candidate"]] = round(elapsed, 1)
    return found
