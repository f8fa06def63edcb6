"""A builder in the test's own process, for tests of what a builder replies and not of the process around it."""

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.building import builder_client
from orchestrator.building.builder_process import BuilderProcess, answer
from orchestrator.plugin import JobFailed


class LocalBuilder:
    """Takes the place of the guarded builder process, whose start takes two seconds: torch is loaded here."""

    started = 0

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        assert "orchestrator.building.builder_process" in command
        type(self).started += 1
        self.alive = True
        self._worker = BuilderProcess(lambda event: None)

    def request(
        self, message: Mapping[str, Any], *, timeout_s: float, memory_bytes: int, on_event: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Reply as the process does; what it prints is dropped, as the process's own output is."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            reply = json.loads(json.dumps(answer(self._worker, json.loads(json.dumps(message)))))
        if "error" in reply:
            raise JobFailed(reply["error"]["kind"], reply["error"]["message"], reply["error"]["step"])
        result: dict[str, Any] = reply["result"]
        return result

    def kill(self) -> None:
        """Reply to nothing more."""
        self.alive = False


def use_local_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches of this process build in it."""
    monkeypatch.setattr(builder_client, "GuardedProcess", LocalBuilder)
