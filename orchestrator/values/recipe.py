"""Recipes: the ordered steps that make a model. Plain data, serialisable, hashable by digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

BASELINE = "baseline"
"""The name of the empty recipe: the original."""

ParameterValue = bool | int | float | str
ParameterValues = Mapping[str, ParameterValue]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A Method with its parameters fixed."""

    method: str
    version: int
    parameters: Mapping[str, ParameterValue] = field(default_factory=lambda: MappingProxyType({}))

    def as_json(self) -> dict[str, Any]:
        """Return the step as in results.json."""
        return {"method": self.method, "version": self.version, "parameters": dict(self.parameters)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The ordered steps that make a model; the empty recipe is the original."""

    steps: tuple[Step, ...] = ()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the recipe as in results.json."""
        return [step.as_json() for step in self.steps]

    @classmethod
    def from_json(cls, steps: list[dict[str, Any]]) -> "Recipe":
        """Create a recipe from the data of `as_json`."""
        return cls(
            steps=tuple(
                Step(method=s["method"], version=s["version"], parameters=MappingProxyType(dict(s["parameters"]))) for s in steps
            )
        )

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hexadecimal) of the canonical JSON: equal recipes have equal digests on every machine."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identifier(self) -> str:
        """Return a short name for folders and tables."""
        return self.digest[:10] if self.steps else BASELINE

    def __str__(self) -> str:
        if not self.steps:
            return "the original"
        return " > ".join(
            step.method + (f"({', '.join(f'{k}={v}' for k, v in step.parameters.items())})" if step.parameters else "")
            for step in self.steps
        )
