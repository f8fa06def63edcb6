"""Declared reads: the parts of a context that a method's result depends on, and a view of a context that offers only those.

A read is "target", "target.runtime" (any field of `Target`, or "support"), "target.channel_multiple" (all number formats),
"target.channel_multiple.float32", "task", "task.metric", "epochs", "student", "task_loss" or "train". What is not listed here
(the data, the network, the seed, the other fields of the task) is the same in all runs on a task, and needs no declaration.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from orchestrator.errors import MethodError
from orchestrator.plugin.method import EVERYTHING, TRAINING_PARTS, BuildContext
from orchestrator.values.target import Target

TASK = frozenset({"spec", "name", "metric", "direction"})
TARGET = frozenset(field.name for field in dataclasses.fields(Target)) | {"support"}
MULTIPLE = "channel_multiple"


def is_read(name: str) -> bool:
    """Return True if a name can stand in `reads`."""
    head, dot, part = name.partition(".")
    parts = {"task": TASK, "target": TARGET | {MULTIPLE, part if part.startswith(f"{MULTIPLE}.") else MULTIPLE}}
    return part in parts.get(head, ()) if dot else name in EVERYTHING


class Access:
    """The reads that a method has declared, and whether it has trained.

    Args:
        method: Name of the method, for messages.
        reads: The declared reads.
    """

    def __init__(self, method: str, reads: frozenset[str]) -> None:
        self.trained = False
        self._method, self._reads = method, reads

    def check(self, read: str) -> None:
        """Check that a part is declared, by itself or as a part of a larger one.

        Raises:
            MethodError: It is not; names the attribute and the fix.
        """
        parts = read.split(".")
        if not any(".".join(parts[:count]) in self._reads for count in range(1, len(parts) + 1)):
            raise MethodError(
                f"{self._method}: `context.{read}` is read but not declared; add '{read}' to the method's `reads`: "
                f"its result is reused wherever the declared parts are the same"
            )

    @contextmanager
    def limited(self, reads: frozenset[str]) -> Iterator[None]:
        """Allow only these reads inside."""
        before, self._reads = self._reads, reads
        try:
            yield
        finally:
            self._reads = before


class View:
    """An object of which the guarded attributes can be read only if they are declared."""

    def __init__(self, inner: Any, guarded: frozenset[str], access: Access, prefix: str = "") -> None:
        self._inner, self._guarded, self._access, self._prefix = inner, guarded, access, prefix

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._guarded:
            self._access.check(f"{self._prefix}{name}")
        return getattr(self._inner, name)


class TargetView(View):
    """A target of which only the declared parts can be read."""

    def channel_multiple(self, number_format: str) -> int:
        """As `Target.channel_multiple`."""
        self._access.check(f"target.{MULTIPLE}.{number_format}")
        multiple: int = self._inner.channel_multiple(number_format)
        return multiple


def restricted(context: BuildContext, access: Access) -> BuildContext:
    """Return a view of a context that offers only the declared parts."""
    view: Any = View(context, TRAINING_PARTS, access)
    view.target = None if context.target is None else TargetView(context.target, TARGET, access, "target.")
    view.task = View(context.task, TASK, access, "task.")
    return cast(BuildContext, view)
