"""Parameters of a method: name, default, search range and meaning declared together, once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
        only_if: `("pattern", "unstructured")`: the parameter exists only where the parameter of that name, declared before it,
            has that value, or one of several values. Empty: it always exists.
    """

    name: str
    help: str
    cheaper: Literal["low", "high"] | None = None
    only_if: tuple[ParameterValue, ...] = ()

    def exists(self, values: Mapping[str, ParameterValue]) -> bool:
        """Return True if the parameter exists beside these values of the parameters declared before it."""
        return not self.only_if or values.get(str(self.only_if[0])) in self.only_if[1:]

    @property
    @abstractmethod
    def start(self) -> ParameterValue:
        """Return the default value."""

    @abstractmethod
    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        """Return the lowest and the highest value of the search; the default twice if values have no order."""

    @property
    def cheapest(self) -> ParameterValue:
        """Return the value at which the model is cheapest to run; the default if that is unknown."""
        return self.start if self.cheaper is None else self.ends()[self.cheaper == "high"]

    @property
    def gentlest(self) -> ParameterValue:
        """Return the value that changes the model least; the default if that is unknown."""
        return self.start if self.cheaper is None else self.ends()[self.cheaper == "low"]

    @abstractmethod
    def check(self, value: Any) -> ParameterValue:
        """Return a legal value in the parameter's own type.

        Raises:
            ParameterError: the law and the value, in one line.
        """

    @abstractmethod
    def values(self) -> tuple[ParameterValue, ...]:
        """Return the values that the search can ask for."""

    def count(self) -> int:
        """Return the number of values that the search can ask for."""
        return len(self.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice(Parameter):
    """One of a few values; the default stands first unless named."""

    choices: tuple[ParameterValue, ...]
    default: ParameterValue | None = None

    @property
    def start(self) -> ParameterValue:
        """Return the default value."""
        return self.choices[0] if self.default is None else self.default

    def check(self, value: Any) -> ParameterValue:
        """Return a legal value in its own type; see `Parameter.check`."""
        for choice in self.choices:
            if type(choice) is type(value) and choice == value:
                return choice
        raise ParameterError(f"`{self.name}` must be one of {list(self.choices)}, but got {value!r}")

    def values(self) -> tuple[ParameterValue, ...]:
        """Return the values of the search."""
        return self.choices

    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        """Return the lowest and the highest value of the search."""
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
        """Return the default value."""
        return self._typed(min(max(self.default, self.low), self.high))

    def _typed(self, value: float) -> ParameterValue:
        return int(value) if self.integer else float(value)

    def check(self, value: Any) -> ParameterValue:
        """Return a legal value in its own type; see `Parameter.check`."""
        low, high = self.bounds or (self.low, self.high)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low - 1e-9 <= value <= high + 1e-9 or (self.integer and value != int(value)):
            kind = "a whole number" if self.integer else "a number"
            raise ParameterError(f"`{self.name}` must be {kind} with {low} <= value <= {high}, but got {value!r}")
        return self._typed(value)

    def values(self) -> tuple[ParameterValue, ...]:
        """Return the values of the search."""
        return tuple(self._typed(round(self.low + k * self.step, DIGITS)) for k in range(self.count()))

    def count(self) -> int:
        """Return the number of values of the search."""
        return int((self.high - self.low) / self.step + 1e-9) + 1

    def ends(self) -> tuple[ParameterValue, ParameterValue]:
        """Return the lowest and the highest value of the search."""
        return self.values()[0], self.values()[-1]


Parameters = tuple[Parameter, ...]


def number(parameters: Sequence[Parameter], name: str) -> Number:
    """Return the number of that name among a method's parameters."""
    return next(p for p in parameters if isinstance(p, Number) and p.name == name)


def narrowed(parameters: Sequence[Parameter], **changes: Any) -> tuple[Parameter, ...]:
    """Return parameters with other search ranges: `narrowed(ps, blocks={"high": 3}, scheme={"choices": ("u8s8",)})`."""
    names = {p.name for p in parameters}
    for name in changes:
        if name not in names:
            raise ParameterError(unknown("parameter", name, names))
    return tuple(replace(p, **changes[p.name]) if p.name in changes else p for p in parameters)


def assigned(parameters: Sequence[Parameter], value: Callable[[Parameter], ParameterValue]) -> dict[str, ParameterValue]:
    """Return `value(parameter)` by name for the parameters that exist beside the values of those declared before them."""
    values: dict[str, ParameterValue] = {}
    for parameter in parameters:
        if parameter.exists(values):
            values[parameter.name] = value(parameter)
    return values


def check_conditions(parameters: Sequence[Parameter]) -> None:
    """Check that each `only_if` names a parameter that is declared earlier, and values that it can have.

    Raises:
        ParameterError: It does not; names the parameter.
    """
    earlier: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.only_if:
            other, *values = parameter.only_if
            if other not in earlier or not values:
                raise ParameterError(
                    f"`{parameter.name}`: only_if must be the name of a parameter declared before it and values of that one, "
                    f"but is {parameter.only_if}"
                )
            for value in values:
                earlier[str(other)].check(value)
        earlier[parameter.name] = parameter


def checked(method: str, parameters: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, ParameterValue]:
    """Return all parameters of a step that exist: the given values checked, the missing ones at their defaults.

    A declared name that ends in `*` stands for any number of parameters whose names begin so (one for each layer of a network):
    a method's `offer` spells them out, and here each given one is checked by it; those that are not given have no default.

    Raises:
        ParameterError: For an unknown name, an illegal value, or a parameter that does not exist beside the others (`only_if`);
            names the method.
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
        complete = assigned(list(known.values()), lambda p: p.check(values[p.name]) if p.name in values else p.start)
        for name in values:
            if name not in complete:
                other, *allowed = known[name].only_if
                raise ParameterError(
                    f"`{name}` exists only where `{other}` is {' or '.join(map(str, allowed))}, but `{other}` is "
                    f"{complete.get(str(other))}; leave `{name}` out"
                )
        return complete
    except ParameterError as error:
        raise ParameterError(f"{method}: {error}") from None


def percent(share: ParameterValue) -> str:
    """Return a share of 1 in per cent, as a method's `phrase` writes it: 0.35 is "35 %"."""
    return f"{float(share) * 100:.3g} %"


def plural(count: ParameterValue, what: str) -> str:
    """Return a count with its noun: "1 epoch", "0.3 epochs", "2 layers"."""
    return f"{float(count):g} {what}{'' if count == 1 else 's'}"
