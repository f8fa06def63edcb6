"""The values of the parts of a context that methods declare to read, as they enter the keys of results."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from orchestrator.plugin.reads import MULTIPLE, TASK
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription


class ReadValues:
    """Values of reads (`orchestrator.plugin.reads`) in one run, as JSON can hold them.

    Args:
        own: Values of the reads that are neither of the target nor of the task.
    """

    def __init__(self, target: Target | None, task: TaskDescription, own: Mapping[str, Any]) -> None:
        self._target, self._task = target, task
        self._known: dict[str, Any] = {"train": None, **own}

    def of(self, reads: Iterable[str]) -> dict[str, Any]:
        """Return the values by read."""
        for read in reads:
            if read not in self._known:
                self._known[read] = to_jsonable_python(self._value(*read.partition(".")[::2]))
        return {read: self._known[read] for read in sorted(reads)}

    def _value(self, head: str, part: str) -> Any:
        if head == "task":
            return getattr(self._task, part) if part else {name: getattr(self._task, name) for name in TASK}
        if self._target is None or not part:
            return self._target
        if not part.startswith(MULTIPLE):
            return getattr(self._target, part)
        number_format = part.removeprefix(MULTIPLE).removeprefix(".")
        return self._target.channel_multiple(number_format) if number_format else self._target.support.channel_multiple
