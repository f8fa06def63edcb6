import json
import os
from pathlib import Path

from orchestrator.plugin import hookimpl

LOG = Path("events.jsonl")


def write(**line):
    with LOG.open("a") as file:
        file.write(json.dumps(line) + "\n")


@hookimpl
def orchestrator_search_started(search):
    write(event="started", known=search.known, resumed=search.resumed, baseline=search.baseline.id, run=search.run)


@hookimpl
def orchestrator_trial_finished(trial):
    write(event="trial", id=trial.id)
    if os.environ.get("FAIL"):
        raise ValueError("the server is gone")


@hookimpl
def orchestrator_search_ended(result):
    write(event="ended", candidates=len(result.candidates))
