"""A builder in the test process, for tests of the builder's replies rather than of its process."""

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
    """A replacement of the guarded builder process, whose start takes two seconds to import torch."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        assert "orchestrator.building.builder_process" in command
        self.alive = True
        self._worker = BuilderProcess(lambda event: None)

    def request(
        self, message: Mapping[str, Any], *, timeout_s: float, memory_bytes: int, on_event: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Return the reply of the builder; its output is discarded."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            reply = json.loads(json.dumps(answer(self._worker, json.loads(json.dumps(message)))))
        if "error" in reply:
            raise JobFailed(reply["error"]["kind"], reply["error"]["message"], reply["error"]["step"])
        result: dict[str, Any] = reply["result"]
        return result

    def kill(self) -> None:
        """Mark the builder as ended."""
        self.alive = False


def use_local_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build candidates of searches in this process."""
    monkeypatch.setattr(builder_client, "GuardedProcess", LocalBuilder)
