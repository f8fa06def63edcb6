"""A `MonkeyPatch` that detects fakes without effect."""

import contextlib
import functools
import types
from collections.abc import Iterator
from typing import Any

import pytest

OWN = ("orchestrator", "orchestrator_")


class CheckedMonkeyPatch(pytest.MonkeyPatch):  # type: ignore[misc]
    """A `MonkeyPatch` that records which fakes of product functions were called.

    A fake that is never called has no effect: usually the product has moved the function to another module. The base class
    rejects names that do not exist.
    """

    def __init__(self) -> None:
        super().__init__()
        self._uncalled: set[str] = set()
        self._nested: list[CheckedMonkeyPatch] = []

    def setattr(self, target: Any, name: Any, *value: Any, raising: bool = True) -> None:
        """Replace an attribute that exists."""
        if not raising:
            raise ValueError(f"setattr of {name!r} with raising=False may replace nothing")
        if isinstance(target, str):  # "package.module.name", value
            super().setattr(target, self._watched(target, target, name))
        else:
            super().setattr(target, name, *(self._watched(target, f"{_name(target)}.{name}", one) for one in value))

    @contextlib.contextmanager
    def context(self) -> Iterator["CheckedMonkeyPatch"]:  # type: ignore[override]
        """Return a nested patch, whose fakes count as this one's."""
        nested = type(self)()
        self._nested.append(nested)
        try:
            yield nested
        finally:
            nested.undo()

    def uncalled(self) -> set[str]:
        """Return the names of replaced functions whose fakes were never called."""
        return self._uncalled.union(*(nested.uncalled() for nested in self._nested))

    def _watched(self, target: Any, name: str, value: Any) -> Any:
        module = target if isinstance(target, str) else getattr(target, "__module__", None) or getattr(target, "__name__", "")
        if not isinstance(value, types.FunctionType) or not str(module).startswith(OWN):
            return value
        self._uncalled.add(name)

        @functools.wraps(value)
        def fake(*arguments: Any, **named: Any) -> Any:
            self._uncalled.discard(name)
            return value(*arguments, **named)

        return fake


def _name(target: Any) -> str:
    return getattr(target, "__name__", None) or type(target).__name__
