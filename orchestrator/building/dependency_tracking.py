"""What a method asks of its surroundings while it works, so that its result is taken again wherever the answers are the same.

A step that never looks at the target is shared between targets; one that asks for the multiple of channels is shared between
those that have the same.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import TypeAdapter

from orchestrator.plugin.method import BuildContext
from orchestrator.values.target import Target
from orchestrator.values.task import TaskDescription

ANSWERED = frozenset({"epochs", "student", "task_loss"})
"""What of the context, beside its target and its task, differs between runs on the same task; the rest is in every key."""
SAID = frozenset({"name", "model", "data", "metric", "direction"})
"""What of the task's description differs between runs on the same task."""
PARTS = frozenset(field.name for field in dataclasses.fields(Target)) | {"support"}
MULTIPLE = "channel_multiple:"
TARGET: TypeAdapter[Any] = TypeAdapter(Target)


class DependencyTracker:
    """What has been asked since it began.

    Attributes:
        asked: Questions: "epochs", "task.metric", "target.runtime", "target.channel_multiple:int8".
        trained: Whether a training was asked for.
    """

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.trained = False

    @contextmanager
    def apart(self) -> Iterator[set[str]]:
        """What is asked inside; in the end it counts as asked outside too."""
        before, inside = self.asked, set[str]()
        self.asked = inside
        try:
            yield inside
        finally:
            self.asked = before | inside


class Answers:
    """What the surroundings answer, as JSON has it.

    Args:
        plain: Answers of neither of them, by question.
    """

    def __init__(self, target: Target | None, task: TaskDescription, plain: Mapping[str, Any]) -> None:
        self._target, self._task, self._plain = target, task, dict(plain)
        self._whole: dict[str, Any] | None = None

    def to(self, questions: "set[str] | frozenset[str]") -> dict[str, Any]:
        """The answers by question."""
        return {question: self._to(question) for question in sorted(questions)}

    def _to(self, question: str) -> Any:
        name, dot, part = question.partition(".")
        if not dot:
            return self._plain[name]
        if name == "task":
            return getattr(self._task, part)
        if self._target is None:
            return None
        if part.startswith(MULTIPLE):
            return self._target.channel_multiple(part.removeprefix(MULTIPLE))
        if self._whole is None:
            self._whole = TARGET.dump_python(self._target, mode="json")
        if part == "support":
            runtime = self._target.runtime
            return next(support for support in self._whole["profile"]["runtimes"] if support["name"] == runtime)
        return self._whole[part]


class WatchedTarget(Target):
    """A target that notes what is asked of it."""

    __slots__ = ("_inner", "_watch")
    _inner: Target
    _watch: DependencyTracker

    @classmethod
    def of(cls, target: Target, watch: DependencyTracker) -> "WatchedTarget":
        """The same target, watched."""
        made: WatchedTarget = cls.__new__(cls)
        for field in dataclasses.fields(Target):
            object.__setattr__(made, field.name, getattr(target, field.name))
        object.__setattr__(made, "_inner", target)
        object.__setattr__(made, "_watch", watch)
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in PARTS:
            try:
                object.__getattribute__(self, "_watch").asked.add(f"target.{name}")
                return getattr(object.__getattribute__(self, "_inner"), name)
            except AttributeError:
                pass  # a copy that a method made for itself: whatever it was made of has been noted
        return object.__getattribute__(self, name)

    def channel_multiple(self, number_format: str) -> int:
        """As `Target.channel_multiple`: no more is asked than that number."""
        try:
            object.__getattribute__(self, "_watch").asked.add(f"target.{MULTIPLE}{number_format}")
            inner: Target = object.__getattribute__(self, "_inner")
        except AttributeError:
            return Target.channel_multiple(self, number_format)
        return inner.channel_multiple(number_format)

    def __reduce__(self) -> Any:
        return (_plain, (self._inner,))


class WatchedTask(TaskDescription):
    """A task that notes what is asked of it."""

    __slots__ = ("_watch",)
    _watch: DependencyTracker

    @classmethod
    def of(cls, task: TaskDescription, watch: DependencyTracker) -> "WatchedTask":
        """The same task, watched."""
        made: WatchedTask = cls.__new__(cls)
        for field in dataclasses.fields(TaskDescription):
            object.__setattr__(made, field.name, getattr(task, field.name))
        object.__setattr__(made, "_watch", watch)
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in SAID:
            with suppress(AttributeError):
                object.__getattribute__(self, "_watch").asked.add(f"task.{name}")
        return object.__getattribute__(self, name)


class WatchedContext(BuildContext):
    """A context that notes what is asked of it."""

    __slots__ = ("_watch",)
    _watch: DependencyTracker

    @classmethod
    def of(cls, context: BuildContext, watch: DependencyTracker) -> "WatchedContext":
        """The same context, watched; its target too."""
        made: WatchedContext = cls.__new__(cls)
        for field in dataclasses.fields(BuildContext):
            object.__setattr__(made, field.name, getattr(context, field.name))
        if context.target is not None:
            object.__setattr__(made, "target", WatchedTarget.of(context.target, watch))
        object.__setattr__(made, "task", WatchedTask.of(context.task, watch))
        object.__setattr__(made, "_watch", watch)
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in ANSWERED:
            with suppress(AttributeError):  # a copy that a method made for itself: what it was made of has been noted
                object.__getattribute__(self, "_watch").asked.add(name)
        return object.__getattribute__(self, name)


def _plain(target: Target) -> Target:
    return target
