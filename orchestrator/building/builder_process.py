"""The warm build worker: a process that holds torch, the task and the trained networks, and builds one recipe after the other.

Started by `Workshop`; requests and replies are lines of JSON, as in `devices/agent.py`. It may crash, hang or be killed
at any time: the search starts another one.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.devices.agent import die_with_parent

if __name__ == "__main__":  # before the imports that take seconds: a search that is killed meanwhile leaves nothing behind
    die_with_parent(int(sys.argv[1]))

from orchestrator.building.protocol import (
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
from orchestrator.errors import FULL, InputError, OrchestratorError

QUIET_S = 0.2


class BuilderProcess:
    """Answers the requests; its methods are their names."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._said = 0.0

    def prepare(self, **request: Any) -> Any:
        """Load and check the task, ask the methods what they offer, and write the data that scoring needs."""
        from orchestrator.building import task_setup

        wanted: PrepareRequest = PREPARE.validate_python(request)
        self._prepared = task_setup.prepare(wanted, self._report)
        builder = self._prepared.builder
        offers = []
        if wanted.offers:
            for offer in builder.offers():
                method = self._prepared.methods[offer.method]
                offers.append(
                    OfferReply(
                        method=offer.method,
                        version=method.version,
                        family=method.family,
                        parameters=offer.parameters,
                        refused=offer.refused,
                    )
                )
        reply = PrepareReply(
            task=builder.context.task,
            offers=tuple(offers),
            epochs=builder.context.epochs,
            notes=self._prepared.notes,
            judge=self._prepared.judge,
        )
        return as_json(PREPARED, reply)

    def build(self, recipe: list[dict[str, Any]], folder: str, floors: dict[str, Any]) -> Any:
        """Build one recipe, in the form that the runtime loads; its trainings are stopped on rungs below their floors."""
        from orchestrator.building.rungs import Stopped
        from orchestrator.values.recipe import Recipe

        builder, stopped, model = self._prepared.builder, None, None
        ladder = self._prepared.ladder
        ladder.begin(FLOORS.validate_python(floors))
        try:
            graph = builder.build(Recipe.from_json(recipe), Path(folder))
            self._report("looking at the exported file", 0.0)
            model = self._prepared.inspect(graph)
        except Stopped as reason:
            stopped = (reason.rung.step, str(reason))
        reply = BuildReply(
            model=model,
            stopped=stopped,
            rungs=tuple(ladder.rungs),
            training_s=ladder.training_s,
            reused=builder.reused,
            took_s=builder.took_s,
            notes=self._prepared.new_notes(),
        )
        return as_json(BUILT, reply)

    def sketch(self, recipe: list[dict[str, Any]], folder: str) -> Any:
        """Build one recipe without its trainings; where it has none, that is the model itself."""
        from orchestrator.values.recipe import Recipe

        sketcher = self._prepared.sketcher
        model = self._prepared.inspect(sketcher.build(Recipe.from_json(recipe), Path(folder)))
        reply = BuildReply(model=model, reused=sketcher.reused, took_s=sketcher.took_s, notes=self._prepared.new_notes())
        return as_json(BUILT, reply)

    def inspect(self, graph: str) -> Any:
        """Return the facts about an exported model that its file contains."""
        self._report("looking at the exported file", 0.0)
        return as_json(INSPECTED, self._prepared.inspect(Path(graph)))

    def score(self, outputs: list[str], baseline: list[str] | None, split: str) -> Any:
        """Return the metric on a device's outputs."""
        import numpy as np

        from orchestrator.measuring.quality import evaluate

        own, original = ([np.load(path, allow_pickle=False) for path in paths] for paths in (outputs, baseline or []))
        labels, count = self._prepared.labels(split), len(own[0])  # the first examples only, where running all took too long
        original = [array[:count] for array in original]
        labels = None if labels is None else labels[:count]
        return as_json(QUALITY, evaluate(self._prepared.metric, own, labels, original if baseline else None))

    def _report(self, what: str, done: float) -> None:
        now = time.monotonic()
        if done == 0 or now - self._said > QUIET_S:
            self._said = now
            self._send({"event": "progress", "what": what, "done": done})


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    worker = BuilderProcess(send)
    for line in sys.stdin:
        send(answer(worker, json.loads(line)))


def answer(worker: BuilderProcess, request: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a request: its result, or the error that it ended with."""
    name = request.pop("do")
    try:
        return {"result": getattr(worker, name)(**request)}
    except MemoryError as error:
        return _error("out-of-memory", name, f"MemoryError: {error}")
    except InputError as error:
        return _error("input", name, str(error))
    except OrchestratorError as error:
        return _error(getattr(error, "kind", "error"), getattr(error, "step", name), str(error))
    except OSError as error:
        kind = "surroundings" if error.errno in FULL else "error"
        return _error(kind, name, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except Exception as error:  # what no step guards, the search must still hear of
        return _error("error", name, f"{type(error).__name__}: {error}")


def _error(kind: str, step: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "step": step, "message": message}}


if __name__ == "__main__":
    main()
