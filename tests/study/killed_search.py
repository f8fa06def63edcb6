"""A search that is killed just before or after the record of the baseline is written: `killed_search.py MOMENT MODEL DATA`."""

import os
import signal
import sys
from typing import Any

import orchestrator
from orchestrator.study.run.directory import RunDirectory


def kill(*_: object, **__: object) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(event: dict[str, Any]) -> None:
    """Kill this process as soon as the baseline is complete."""
    if event["event"] == "baseline":
        kill()


if __name__ == "__main__":
    moment, model, data = sys.argv[1:]
    if moment == "before":
        RunDirectory.write_candidate = kill
    orchestrator.search(model=model, data=data, trials=2, output="run", observer=kill_after)
