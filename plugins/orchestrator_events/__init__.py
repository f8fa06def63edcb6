"""Searches followed by other tools: TensorBoard scalars and MLflow runs. Both are off until the environment asks for them.

    ORCHESTRATE_TENSORBOARD=FOLDER    scalars of every candidate in FOLDER/RUN (pip install model-orchestrator[tensorboard])
    ORCHESTRATE_MLFLOW=URI            a run with a nested run for every candidate (pip install model-orchestrator[mlflow]);
                                      1: on the server that MLFLOW_TRACKING_URI names

A tool that is missing, or a server that does not answer, is noted in the run's notes and stops nothing, the other tool neither:
each is a plugin of its own.
"""

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from orchestrator.plugin import CandidateResult, RunResult, SearchStarted, hookimpl

if TYPE_CHECKING:
    from orchestrator_events.follower import Follower


class Events(ABC):
    """A plugin that follows one search with one tool; made anew with every registry."""

    variable: str
    """Of the environment: the tool is used where it is set, with its value."""

    def __init__(self) -> None:
        self._follower: Follower | None = None

    @abstractmethod
    def follow(self, said: str, search: SearchStarted) -> "Follower":
        """Begin, as the environment said."""

    @hookimpl
    def orchestrator_search_started(self, search: SearchStarted) -> None:
        """Begin, where the environment asks for it."""
        if said := os.environ.get(self.variable):
            self._follower = self.follow(said, search)

    @hookimpl
    def orchestrator_trial_finished(self, trial: CandidateResult) -> None:
        """Write it down."""
        if self._follower is not None:
            self._follower.trial(trial)

    @hookimpl
    def orchestrator_search_ended(self, result: RunResult) -> None:
        """Write the end down, and close."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.end(result)


class TensorBoardEvents(Events):
    """TensorBoard scalars in the folder that the environment names."""

    variable = "ORCHESTRATE_TENSORBOARD"

    def follow(self, said: str, search: SearchStarted) -> "Follower":
        from orchestrator_events.tensorboard import TensorBoard

        return TensorBoard(said, search)


class MlflowEvents(Events):
    """MLflow runs where the environment says."""

    variable = "ORCHESTRATE_MLFLOW"

    def follow(self, said: str, search: SearchStarted) -> "Follower":
        from orchestrator_events.mlflow import Mlflow

        return Mlflow(None if said == "1" else said, search)
