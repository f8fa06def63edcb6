"""The search's side of the build worker: starts it, asks it, and starts another one when it dies."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.building.protocol import (
    ASKING,
    BUILT,
    FLOORS,
    INSPECTED,
    PREPARE,
    PREPARED,
    QUALITY,
    BuildReply,
    OfferReply,
    PrepareReply,
    PrepareRequest,
    as_json,
)
from orchestrator.devices.process import GuardedProcess
from orchestrator.errors import EnvironmentFailure, InputError, JobFailed
from orchestrator.measuring.model_info import ModelInfo
from orchestrator.values.recipe import Recipe
from orchestrator.values.results import Floor, QualityResult

PREPARE_TIMEOUT_S = 3600.0

Progress = Callable[[str, float], None]


class BuilderClient:
    """Builds and scores candidates in a warm worker process.

    Args:
        request: What the worker prepares.
        memory_bytes: The worker is killed when it outgrows this.
        folder: Its working folder: the user's own, for what their files read.
        progress: Called with (what is done now, share done).
        left_s: Seconds that are left now for a request.

    Attributes:
        judge: What stands for the metric in keys of the store, once it is prepared.
    """

    def __init__(
        self,
        request: PrepareRequest,
        *,
        memory_bytes: int,
        folder: Path,
        progress: Progress,
        left_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._left_s = left_s
        self._request, self._memory_bytes, self._folder, self._progress = request, memory_bytes, folder, progress
        self._process: GuardedProcess | None = None
        self._doing, self._digest = "start", ""
        self.judge: str | None = None

    def prepare(self) -> PrepareReply:
        """Load and check the task. A method that kills the worker when it is asked what it offers is left out.

        Raises:
            InputError: the user's input is wrong, or loading it killed the process.
        """
        dropped: list[OfferReply] = []
        while True:
            try:
                reply = self._start()
            except JobFailed as failure:
                self.close()
                name = (failure.step or "").removeprefix(ASKING)
                if name == failure.step or self._request.methods is None or name not in self._request.methods:
                    verb = "crashed" if failure.kind == "crash" else "failed"
                    raise InputError(f"loading the model and the data {verb}: {failure}") from failure
                self._request = replace(self._request, methods=tuple(m for m in self._request.methods if m != name))
                dropped.append(OfferReply(method=name, version=0, family="", refused=f"it failed: {failure}"))
                continue
            self._digest, self.judge = reply.task.digest, reply.judge
            budget = replace(self._request.budget, epochs=reply.epochs)
            self._request = replace(self._request, offers=False, budget=budget)
            return replace(reply, offers=(*reply.offers, *dropped))

    def build(self, recipe: Recipe, folder: Path, *, timeout_s: float, floors: Mapping[str, Floor] | None = None) -> BuildReply:
        """Build one recipe.

        Args:
            recipe: Recipe to build.
            folder: Folder for the model and scratch files.
            timeout_s: Seconds after which the process is ended.
            floors: By `Rung.key` the quality below which a training is stopped.

        Raises:
            JobFailed: a step raised, or the worker crashed, hung or outgrew its memory; `step` names it where it is known.
            EnvironmentFailure: the disk is full or read-only, or no worker can be started any more.
        """
        asked = {"recipe": recipe.as_json(), "folder": str(folder), "floors": as_json(FLOORS, dict(floors or {}))}
        reply: BuildReply = BUILT.validate_python(self._ask("build", timeout_s, **asked))
        return reply

    def sketch(self, recipe: Recipe, folder: Path, *, timeout_s: float) -> BuildReply:
        """Build one recipe with every training left out; where it has none, that is the model itself. Raises as `build` does."""
        reply: BuildReply = BUILT.validate_python(self._ask("sketch", timeout_s, recipe=recipe.as_json(), folder=str(folder)))
        return reply

    def inspect(self, graph: Path, *, timeout_s: float) -> ModelInfo:
        """Return the facts about an exported model that its file contains. Raises as `build` does."""
        reply: ModelInfo = INSPECTED.validate_python(self._ask("inspect", timeout_s, graph=str(graph)))
        return reply

    def score(self, outputs: Sequence[Path], baseline: Sequence[Path] | None, split: str, *, timeout_s: float) -> QualityResult:
        """Return the task's metric on a device's outputs, and the paired difference to the baseline's. Raises as `build`.

        Args:
            baseline: Outputs of the baseline, for the paired difference; None: there is none.
            split: Name of the split.
            timeout_s: Seconds after which the process is ended.
            outputs: Of all examples of the split, or of its first ones.
        """
        reply: QualityResult = QUALITY.validate_python(
            self._ask(
                "score",
                timeout_s,
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

    def _start(self) -> PrepareReply:
        environment = {
            # OpenMP's threads spin while they wait: beside any other busy process that made training 20 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime 1.29 and later reports to its maker unless it is told not to
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
        }
        self._process = GuardedProcess(
            [sys.executable, "-m", "orchestrator.building.builder_process", str(os.getpid())], environment, self._folder
        )
        try:
            reply: PrepareReply = PREPARED.validate_python(
                self._send("prepare", PREPARE_TIMEOUT_S, as_json(PREPARE, self._request))
            )
        except BaseException:
            self.close()  # a worker that is not prepared is of no use to anybody
            raise
        return reply

    def _ask(self, request: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        if self._process is None or not self._process.alive:
            self.close()
            try:
                reply = self._start()
            except (JobFailed, InputError) as failure:
                raise EnvironmentFailure(f"the build worker cannot be started again: {failure}") from failure
            if reply.task.digest != self._digest:
                self.close()
                raise EnvironmentFailure(
                    "the model or the data came out different when they were loaded again (an unseeded split, a changed file?): "
                    "what was measured before and after cannot be compared"
                )
        return self._send(request, min(timeout_s, self._left_s()), arguments)

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
                raise EnvironmentFailure(str(failure)) from failure
            raise
