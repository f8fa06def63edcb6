"""Plugins that follow a search: TensorBoard scalars and MLflow runs, enabled by environment variables.

    ORCHESTRATE_TENSORBOARD=FOLDER    scalars of every candidate in FOLDER/RUN (pip install model-orchestrator[tensorboard])
    ORCHESTRATE_MLFLOW=URI            a run with a nested run for every candidate (pip install model-orchestrator[mlflow]);
                                      1: on the server of MLFLOW_TRACKING_URI

If a tool is missing or a server does not answer, the run's notes report it and the search continues. Each is a plugin of its
own.
"""

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from orchestrator.plugin import CandidateResult, RunResult, SearchStarted, hookimpl

if TYPE_CHECKING:
    from orchestrator_events.follower import Follower


class Events(ABC):
    """A plugin that follows one search with one tool; created anew with every registry."""

    variable: str
    """Environment variable that enables the tool and configures it."""

    def __init__(self) -> None:
        self._follower: Follower | None = None

    @abstractmethod
    def follow(self, said: str, search: SearchStarted) -> "Follower":
        """Return the follower for the value of the environment variable."""

    @hookimpl
    def orchestrator_search_started(self, search: SearchStarted) -> None:
        """Create the follower if the environment variable is set."""
        if said := os.environ.get(self.variable):
            self._follower = self.follow(said, search)

    @hookimpl
    def orchestrator_trial_finished(self, trial: CandidateResult) -> None:
        """Record the candidate."""
        if self._follower is not None:
            self._follower.trial(trial)

    @hookimpl
    def orchestrator_search_ended(self, result: RunResult) -> None:
        """Record the end and close the follower."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.end(result)


class TensorBoardEvents(Events):
    """TensorBoard scalars in the folder of the environment variable."""

    variable = "ORCHESTRATE_TENSORBOARD"

    def follow(self, said: str, search: SearchStarted) -> "Follower":
        """Return the follower for the value of the environment variable."""
        from orchestrator_events.tensorboard import TensorBoard

        return TensorBoard(said, search)


class MlflowEvents(Events):
    """MLflow runs on the server of the environment variable."""

    variable = "ORCHESTRATE_MLFLOW"

    def follow(self, said: str, search: SearchStarted) -> "Follower":
        """Return the follower for the value of the environment variable."""
        from orchestrator_events.mlflow import Mlflow

        return Mlflow(None if said == "1" else said, search)
