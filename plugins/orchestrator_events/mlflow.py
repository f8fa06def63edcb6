"""MLflow: one run for the search, one nested run for every candidate."""

import os
from pathlib import Path
from typing import Any

from orchestrator.plugin import CandidateResult, EnvironmentFailure, RunResult, SearchStarted
from orchestrator_events.follower import Follower, figures, recipe

MOST = 500
"""MLflow's limit on the length of a parameter, including older servers."""


PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Retry settings of MLflow: its default of seven retries of two minutes each would delay the search."""


class Mlflow(Follower):
    """Runs of the experiment `orchestrator` on a tracking server, in a database (`sqlite:///runs.db`) or in a folder.

    Args:
        uri: Tracking URI, or None for MLFLOW_TRACKING_URI.

    Raises:
        EnvironmentFailure: MLflow is not installed.
    """

    def __init__(self, uri: str | None, search: SearchStarted) -> None:
        for name, value in PATIENCE.items():  # read when MLflow is used; the user's own settings win
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise EnvironmentFailure("mlflow is not installed: pip install mlflow-skinny (or mlflow, for sqlite)") from None
        self._client: Any = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name("orchestrator")
        self._experiment = found.experiment_id if found else self._client.create_experiment("orchestrator")
        name = Path(search.run).name
        self._run = self._client.create_run(self._experiment, run_name=name, tags={"orchestrator.run": search.run}).info.run_id
        told = {
            "task": search.task.name,
            "metric": search.task.metric,
            "target": search.target.profile.name,
            "device": search.target.device,
            "runtime": search.target.runtime,
            "threads": str(search.target.threads),
            "methods": ", ".join(search.methods),
            "resumed": str(search.resumed),
            **search.parameters,
        }
        for key, value in told.items():
            self._client.log_param(self._run, key, value[:MOST])
        self._candidate(search.baseline)

    def trial(self, trial: CandidateResult) -> None:
        """Create a nested run for the candidate."""
        self._candidate(trial)

    def end(self, result: RunResult) -> None:
        """Tag the run with the recommendation and end it."""
        self._client.log_metric(self._run, "front_size", float(len(result.front)))
        self._client.set_tag(self._run, "orchestrator.recommended", result.recommended or "none")
        self._client.set_tag(self._run, "orchestrator.reason", result.reason)
        for identifier in result.front:
            self._client.set_tag(self._run, f"orchestrator.front.{identifier}", recipe(result.candidate(identifier)))
        broken_off = result.search.get("ended") == "it was interrupted"
        self._client.set_terminated(self._run, status="KILLED" if broken_off else "FINISHED")

    def _candidate(self, candidate: CandidateResult) -> None:
        tags = {"mlflow.parentRunId": self._run, "orchestrator.id": candidate.id, "orchestrator.state": candidate.state}
        name = f"{candidate.id} {recipe(candidate)}"[:MOST]
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        for step in candidate.recipe:
            self._client.log_param(run, f"{step.method}.version", str(step.version))
            for key, value in step.parameters.items():
                self._client.log_param(run, f"{step.method}.{key}".replace("*", "all").replace(":", "-"), str(value)[:MOST])
        for key, value in figures(candidate).items():
            self._client.log_metric(run, key, value)
        if candidate.failure is not None:
            self._client.set_tag(run, "orchestrator.failure", candidate.failure.message)
        self._client.set_terminated(run, status="FAILED" if candidate.state == "failed" else "FINISHED")
