"""The search's side of the build worker: starts it, asks it, and starts another one when it dies."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.build.protocol import (
    BUILT,
    PREPARE,
    PREPARED,
    QUALITY,
    BuildReply,
    PrepareReply,
    PrepareRequest,
    as_json,
)
from orchestrator.devices.process import GuardedProcess
from orchestrator.errors import InputError, Interrupted, SurroundingsError
from orchestrator.plugin.device import JobFailed
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import QualityResult

PREPARE_TIMEOUT_S = 3600.0
SCORE_TIMEOUT_S = 600.0

Progress = Callable[[str, float], None]


class Workshop:
    """Builds and scores candidates in a warm worker process.

    Args:
        request: What the worker prepares.
        memory_bytes: The worker is killed when it outgrows this.
        folder: Its working folder.
        progress: Called with (what is done now, share done).
    """

    def __init__(self, request: PrepareRequest, *, memory_bytes: int, folder: Path, progress: Progress) -> None:
        self._request, self._memory_bytes, self._folder, self._progress = request, memory_bytes, folder, progress
        self._process: GuardedProcess | None = None
        self._doing = "start"

    def prepare(self) -> PrepareReply:
        """Load and check the task.

        Raises:
            InputError: the user's input is wrong, or loading it killed the process.
        """
        try:
            reply: PrepareReply = PREPARED.validate_python(
                self._ask("prepare", PREPARE_TIMEOUT_S, **as_json(PREPARE, self._request))
            )
        except JobFailed as failure:
            self.close()
            verb = "crashed" if failure.kind == "crash" else "failed"
            raise InputError(f"loading the model and the data {verb}: {failure}") from failure
        self._request = replace(self._request, offers=False, epochs=reply.epochs)
        return reply

    def build(self, recipe: Recipe, folder: Path, *, timeout_s: float) -> BuildReply:
        """Build one recipe.

        Raises:
            JobFailed: a step raised, or the worker crashed, hung or outgrew its memory; `step` names it where it is known.
            SurroundingsError: the disk is full or read-only.
        """
        reply: BuildReply = BUILT.validate_python(
            self._ask("build", timeout_s, recipe=recipe.as_json(), folder=str(folder))
        )
        return reply

    def score(self, outputs: Sequence[Path], baseline: Sequence[Path] | None, split: str) -> QualityResult:
        """The task's metric on outputs that a device wrote, and the paired difference to the baseline's."""
        reply: QualityResult = QUALITY.validate_python(
            self._ask(
                "score",
                SCORE_TIMEOUT_S,
                outputs=[str(path) for path in outputs],
                baseline=None if baseline is None else [str(path) for path in baseline],
                split=split,
            )
        )
        return reply

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _ask(self, request: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        if self._process is None or not self._process.alive:
            self.close()
            # OpenMP's threads spin while they wait: beside any other busy process that made training 20 times slower.
            environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
            self._process = GuardedProcess(
                [sys.executable, "-m", "orchestrator.build.worker"], environment, self._folder
            )
            if request != "prepare":
                self._send("prepare", PREPARE_TIMEOUT_S, as_json(PREPARE, self._request))
        try:
            return self._send(request, timeout_s, arguments)
        except Interrupted:
            self.close()
            raise

    def _hear(self, event: dict[str, Any]) -> None:
        self._doing = event["what"]
        self._progress(event["what"], event["done"])

    def _send(self, request: str, timeout_s: float, arguments: dict[str, Any]) -> dict[str, Any]:
        self._doing = request
        if self._process is None:
            raise JobFailed("crash", "the build worker is gone")
        try:
            return self._process.request(
                {"do": request, **arguments},
                timeout_s=timeout_s,
                memory_bytes=self._memory_bytes,
                on_event=self._hear,
            )
        except JobFailed as failure:
            if failure.step is None:
                failure.step = self._doing  # a process that died cannot say what it was doing
            if failure.kind == "input":
                raise InputError(str(failure)) from failure
            if failure.kind == "surroundings":
                raise SurroundingsError(f"{failure}; free some space or mend the folder, then go on with resume") from failure
            raise
