"""Searches followed by other tools: TensorBoard scalars and MLflow runs. Both are off until the environment asks for them.

    ORCHESTRATE_TENSORBOARD=FOLDER    scalars of every candidate in FOLDER/RUN (pip install orchestrator[tensorboard])
    ORCHESTRATE_MLFLOW=URI            a run with a nested run for every candidate (pip install orchestrator[mlflow]);
                                      1: on the server that MLFLOW_TRACKING_URI names

A tool that is missing, or a server that does not answer, is noted in the run's notes and stops nothing.
"""

import os
from typing import TYPE_CHECKING

from orchestrator.plugin import CandidateResult, RunResult, SearchStarted, hookimpl

if TYPE_CHECKING:
    from orchestrator_events.follower import Follower


class Events:
    """The followers of one search; made anew with every registry."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []

    @hookimpl
    def orchestrator_search_started(self, search: SearchStarted) -> None:
        """Open what the environment asks for."""
        if folder := os.environ.get("ORCHESTRATE_TENSORBOARD"):
            from orchestrator_events.tensorboard import TensorBoard

            self._followers.append(TensorBoard(folder, search))
        if uri := os.environ.get("ORCHESTRATE_MLFLOW"):
            from orchestrator_events.mlflow import Mlflow

            self._followers.append(Mlflow(None if uri == "1" else uri, search))

    @hookimpl
    def orchestrator_trial_finished(self, trial: CandidateResult) -> None:
        """Write it down."""
        for follower in self._followers:
            follower.trial(trial)

    @hookimpl
    def orchestrator_search_ended(self, result: RunResult) -> None:
        """Write the end down, and close."""
        while self._followers:
            self._followers.pop().end(result)
