"""Parameters of a method: name, default, search range and meaning declared together, once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.errors import ParameterError, unknown
from orchestrator.values.recipe import ParameterValue

DIGITS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter(ABC):
    """One parameter of a method.

    Attributes:
        cheaper: The end of the range at which the model is cheapest to run, where that is clear: a search begins with the
            extremes. None: neither.
    """

    name: str
    help: str
    cheaper: Literal["low", "high"] | None = None

    @property
    @abstractmethod
    def start(self) -> ParameterValue:
        """The default value."""

    @abstractmethod
    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        """The lowest and the highest value that the search can ask for; the default twice where values have no order."""

    @property
    def cheapest(self) -> ParameterValue:
        """The value at which the model is cheapest to run; the default where that is not known."""
        return self.start if self.cheaper is None else self.ends()[self.cheaper == "high"]

    @property
    def gentlest(self) -> ParameterValue:
        """The value that changes the model least; the default where that is not known."""
        return self.start if self.cheaper is None else self.ends()[self.cheaper == "low"]

    @abstractmethod
    def check(self, value: Any) -> ParameterValue:
        """The value itself when it is legal, in the parameter's own type.

        Raises:
            ParameterError: the law and the value, in one line.
        """

    @abstractmethod
    def count(self) -> int:
        """How many different values the search can ask for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice(Parameter):
    """One of a few values; the default stands first unless named."""

    choices: tuple[ParameterValue, ...]
    default: ParameterValue | None = None

    @property
    def start(self) -> ParameterValue:
        return self.choices[0] if self.default is None else self.default

    def check(self, value: Any) -> ParameterValue:
        for choice in self.choices:
            if type(choice) is type(value) and choice == value:
                return choice
        raise ParameterError(f"`{self.name}` must be one of {list(self.choices)}, but got {value!r}")

    def count(self) -> int:
        return len(self.choices)

    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        numbers = [choice for choice in self.choices if isinstance(choice, int | float)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.choices) else (self.start, self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number(Parameter):
    """A number within `low <= value <= high`; the search asks for `low`, `low + step`, ... only.

    Attributes:
        integer: Whether the value is a whole number.
        bounds: The widest legal range; the search range `low..high` may be narrowed inside it for a model or a target.
    """

    low: float
    high: float
    step: float
    default: float
    integer: bool = False
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (self.low <= self.high and self.step > 0):
            raise ParameterError(
                f"`{self.name}`: low <= high and step > 0 must hold, but got {self.low}, {self.high}, {self.step}"
            )

    @property
    def start(self) -> ParameterValue:
        return self._typed(min(max(self.default, self.low), self.high))

    def _typed(self, value: float) -> ParameterValue:
        return int(value) if self.integer else float(value)

    def check(self, value: Any) -> ParameterValue:
        low, high = self.bounds or (self.low, self.high)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low - 1e-9 <= value <= high + 1e-9 or (self.integer and value != int(value)):
            kind = "a whole number" if self.integer else "a number"
            raise ParameterError(f"`{self.name}` must be {kind} with {low} <= value <= {high}, but got {value!r}")
        return self._typed(value)

    def count(self) -> int:
        return int((self.high - self.low) / self.step + 1e-9) + 1

    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        return self._typed(self.low), self._typed(round(self.low + (self.count() - 1) * self.step, DIGITS))


def narrowed(parameters: Sequence[Parameter], **changes: Any) -> tuple[Parameter, ...]:
    """The same parameters with other search ranges: `narrowed(ps, blocks={"high": 3}, scheme={"choices": ("u8s8",)})`."""
    names = {p.name for p in parameters}
    for name in changes:
        if name not in names:
            raise ParameterError(unknown("parameter", name, names))
    return tuple(replace(p, **changes[p.name]) if p.name in changes else p for p in parameters)


def checked(method: str, parameters: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """All parameters of a step: the given values checked, the missing ones at their defaults.

    A declared name that ends in `*` stands for any number of parameters whose names begin so (one for each layer of a network):
    a method's `offer` spells them out, and here each given one is checked by it; those that are not given have no default.

    Raises:
        ParameterError: for an unknown name or an illegal value; names the method.
    """
    known = {p.name: p for p in parameters if not p.name.endswith("*")}
    patterns = [p for p in parameters if p.name.endswith("*")]
    for name in values:
        pattern = next((p for p in patterns if name.startswith(p.name[:-1]) and name != p.name), None)
        if name not in known and pattern is not None:
            known[name] = replace(pattern, name=name)
        elif name not in known:
            raise ParameterError(f"{method}: {unknown('parameter', name, known)}")
    try:
        return {name: p.check(values[name]) if name in values else p.start for name, p in known.items()}
    except ParameterError as error:
        raise ParameterError(f"{method}: {error}") from None
