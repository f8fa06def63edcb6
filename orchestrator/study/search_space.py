"""The search space of a task on a target, computed from what the methods declare: illegal recipes cannot be asked for."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import BaseTrial

from orchestrator.building.protocol import OfferReply
from orchestrator.errors import PluginError
from orchestrator.plugin.family_order import families_in_order
from orchestrator.plugin.method import Method, OnnxMethod, TorchMethod
from orchestrator.plugin.parameters import Choice, Number, Parameter, assigned
from orchestrator.plugin.runtime_step import FAMILY
from orchestrator.values.recipe import ParameterValue, Recipe, Step

NONE = "none"
DIGITS = 9
LEAST_STARTERS = 8
MOST_STARTERS = 48
STARTERS_SHARE = 4  # one of so many trials: with more the sampler is left less than it needs (bench/samplers.py)
MOST_CHEAPEST = 2
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A place in the order of a recipe: one method of a family, or none."""

    family: str
    methods: tuple[str, ...]


class SearchSpace:
    """All legal recipes.

    The choice of a slot is an Optuna parameter named after the family; a method's parameters are `method.parameter`, asked only
    where the method was chosen.

    Args:
        offers: The methods that take part, with their search ranges.
        methods: Their declarations.
    """

    def __init__(self, offers: Sequence[OfferReply], methods: Mapping[str, Method]) -> None:
        self._offers = {offer.method: offer for offer in offers if offer.refused is None}
        self._methods = {name: methods[name] for name in self._offers}
        ordered = families_in_order(self._methods)
        self.slots = tuple(Slot(family=family, methods=names) for family, names in ordered.items())

    def _choices(self, slot: Slot, before: Sequence[str]) -> tuple[str, ...]:
        """What may follow those methods in a slot; empty where nothing may.

        A method that requires an earlier one is its recovery: where one is offered, no recipe goes without, for a structure
        that is cut and not trained again is seldom worth a trial.
        """
        families = {self._methods[name].family for name in before}
        exported = any(not isinstance(self._methods[name], TorchMethod) for name in before)
        fitting = [name for name in slot.methods if not exported or isinstance(self._methods[name], OnnxMethod)]
        needs = {name: self._methods[name].requires for name in fitting}
        allowed = tuple(name for name in fitting if not needs[name] or needs[name] & families)
        recovery = any(needs[name] for name in allowed)
        return allowed if recovery or not allowed else (NONE, *allowed)

    def _label(self, slot: Slot, choices: Sequence[str]) -> str:
        """Optuna wants one set of choices for each name: a narrower set is a parameter of its own."""
        narrower = set(choices) - {NONE} != set(slot.methods)
        return f"{slot.family}[{','.join(choices)}]" if narrower else slot.family

    def suggest(self, trial: BaseTrial) -> Recipe:
        """Let Optuna choose a recipe."""
        steps: list[Step] = []
        for slot in self.slots:
            choices = self._choices(slot, [step.method for step in steps])
            if not choices:
                continue
            chosen = trial.suggest_categorical(self._label(slot, choices), choices)
            if chosen != NONE:
                suggest = functools.partial(_suggest, trial, str(chosen))
                values = assigned(self._offers[str(chosen)].parameters, suggest)
                steps.append(self._step(str(chosen), values))
        return Recipe(steps=tuple(steps))

    def _step(self, method: str, values: Mapping[str, ParameterValue]) -> Step:
        return Step(method=method, version=self._methods[method].version, parameters=dict(values))

    def parameters(self, recipe: Recipe) -> dict[str, ParameterValue]:
        """A recipe as the Optuna parameters that would have made it."""
        found: dict[str, ParameterValue] = {}
        earlier: list[str] = []
        chosen = {self._methods[step.method].family: step for step in recipe.steps}
        for slot in self.slots:
            choices = self._choices(slot, earlier)
            if not choices:
                continue
            name = self._label(slot, choices)
            step = chosen.get(slot.family)
            found[name] = NONE if step is None else step.method
            if step is not None:
                found |= {f"{step.method}.{key}": value for key, value in step.parameters.items()}
                earlier.append(step.method)
        return found

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """The methods of every legal recipe, one from each slot at most."""
        for chosen in itertools.product(*((NONE, *slot.methods) for slot in self.slots)):
            earlier: list[str] = []
            for slot, name in zip(self.slots, chosen, strict=True):
                if name not in (self._choices(slot, earlier) or (NONE,)):
                    break
                if name != NONE:
                    earlier.append(name)
            else:
                yield tuple(name for name in chosen if name != NONE)

    @functools.cached_property
    def _legal(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self.combinations())

    def size(self) -> int:
        """How many different recipes can be asked for, the original not counted."""
        counts = {name: _count(offer.parameters) for name, offer in self._offers.items()}
        return sum(int(np.prod([counts[name] for name in chosen])) for chosen in self.combinations() if chosen)

    def starters(self, trials: int | None = None) -> list[Recipe]:
        """The recipes that are tried first: single methods, the extremes, then longer combinations, all others at their defaults.

        The extremes are the gentlest recipe of each family that changes a network by degrees, and the cheapest models that the
        space can make: every family at once, each at its far end. They span what the sampler then looks into.

        Where a search tries several runtimes each recipe is tried in all of them, so that they can be told apart.

        Args:
            trials: The run's budget: of more than a quarter of it the usual methods come first, and the rest is the sampler's.
        """
        found = sorted((chosen for chosen in self.combinations() if chosen), key=len)
        most = MOST_STARTERS if trials is None else max(LEAST_STARTERS, trials // STARTERS_SHARE)
        runtimes = [name for name in self._offers if self._methods[name].family == FAMILY]
        if not runtimes:
            return self._first(found, most)
        plain = [chosen for chosen in found if not set(chosen) & set(runtimes)]
        made = [Recipe(steps=(self._step(name, {}),)) for name in runtimes]  # the original
        for recipe in self._first(plain, max(LEAST_STARTERS // 2, most // (1 + len(runtimes)))):
            made += [recipe, *(Recipe(steps=(*recipe.steps, self._step(name, {}))) for name in runtimes)]
        return [recipe for recipe in made if tuple(step.method for step in recipe.steps) in self._legal]

    def _first(self, found: list[tuple[str, ...]], most: int) -> list[Recipe]:
        extremes = self._extremes([chosen for chosen in found if self._usual(chosen)] or found)[: most // 3]
        if len(found) > most - len(extremes):
            found.sort(key=lambda chosen: (not self._usual(chosen), len(chosen)))
            found = sorted(found[: most - len(extremes)], key=len)
        plain = [self._recipe(chosen, lambda p: p.start) for chosen in found]
        singles = next((k for k, recipe in enumerate(plain) if len(recipe.steps) > 1), len(plain))
        return list({r.digest: r for r in (*plain[:singles], *extremes, *plain[singles:])}.values())

    def _extremes(self, combinations: Sequence[tuple[str, ...]]) -> list[Recipe]:
        """The cheapest and the gentlest recipes of these combinations (the short ones first)."""

        def by_degrees(chosen: tuple[str, ...]) -> list[str]:
            return [
                name for name in chosen if any(p.cheaper is not None and p.count() > 1 for p in self._offers[name].parameters)
            ]

        gentle: dict[str, Recipe] = {}
        for chosen in combinations:
            if len(names := by_degrees(chosen)) == 1:
                gentle.setdefault(self._methods[names[0]].family, self._recipe(chosen, lambda p: p.gentlest))
        able = [chosen for chosen in combinations if by_degrees(chosen)]
        longest = max(map(len, able), default=0)
        cheap = [self._recipe(chosen, lambda p: p.cheapest) for chosen in able if len(chosen) == longest]
        return [*cheap[:1], *gentle.values(), *cheap[1:MOST_CHEAPEST]]

    def _usual(self, chosen: Sequence[str]) -> bool:
        return all(self._methods[name].usual for name in chosen)

    def _recipe(self, chosen: Sequence[str], value: Callable[[Parameter], ParameterValue]) -> Recipe:
        return Recipe(steps=tuple(self._step(n, assigned(self._offers[n].parameters, value)) for n in chosen))

    def fitted(self, recipe: Recipe) -> Recipe | None:
        """A recipe of another run as this search can ask for it, numbers moved to the nearest that are offered; else None."""
        if not recipe.steps or tuple(step.method for step in recipe.steps) not in self._legal:
            return None
        steps = []
        for step in recipe.steps:
            offered = {p.name: p for p in self._offers[step.method].parameters}
            if not step.parameters.keys() <= offered.keys():
                return None
            steps.append(self._step(step.method, {name: _nearest(offered[name], v) for name, v in step.parameters.items()}))
        made = Recipe(steps=tuple(steps))
        return made if self.holds(made) else None

    def holds(self, recipe: Recipe) -> bool:
        """Whether a recipe of another run could be asked for here: the same methods, in this order, within these ranges."""
        chosen = tuple(step.method for step in recipe.steps)
        if not chosen or chosen not in self._legal:
            return False
        for step in recipe.steps:
            offered = {p.name: p for p in self._offers[step.method].parameters}
            existing = {name for name, p in offered.items() if p.exists(step.parameters)}
            if step.version != self._methods[step.method].version or existing != step.parameters.keys():
                return False
            if not all(_asked_for(offered[name], value) for name, value in step.parameters.items()):
                return False
        return True

    def random(self, generator: np.random.Generator) -> Recipe:
        """A recipe drawn uniformly over combinations, then over their parameters."""
        combinations = [chosen for chosen in self.combinations() if chosen]
        chosen = combinations[generator.integers(len(combinations))]
        return self._recipe(chosen, lambda p: p.values()[int(generator.integers(p.count()))])

    def describe(self) -> list[str]:
        """The space in words, a line a method."""
        lines = []
        for slot in self.slots:
            for name in slot.methods:
                ranges = ", ".join(_words(p) for p in self._offers[name].parameters)
                lines.append(f"{slot.family}: {name}" + (f" ({ranges})" if ranges else ""))
        return lines


def _count(parameters: Sequence[Parameter]) -> int:
    """Return the number of different steps of a method: those with every combination of the values that others depend on."""
    names = {p.only_if[0] for p in parameters if p.only_if}
    total = 0
    for values in itertools.product(*(p.values() for p in parameters if p.name in names)):
        known = dict(zip((p.name for p in parameters if p.name in names), values, strict=True))
        free = [p.count() for p in parameters if p.name not in names and p.exists(known)]
        total += int(np.prod(free or [1]))
    return total


def _suggest(trial: BaseTrial, method: str, parameter: Parameter) -> ParameterValue:
    name = f"{method}.{parameter.name}"
    if isinstance(parameter, Choice):
        return parameter.check(trial.suggest_categorical(name, parameter.choices))
    if not isinstance(parameter, Number):
        raise PluginError(f"parameter '{name}' must be a Choice or a Number, but is a {type(parameter).__name__}")
    if parameter.integer:
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=int(parameter.step))
    # Rounded: 0.1 + 2 * 0.1 and 0.3 are one value, and must have one digest.
    low, step = round(parameter.low, DIGITS), round(parameter.step, DIGITS)
    high = round(low + (parameter.count() - 1) * step, DIGITS)  # Optuna warns where `high` is off the grid
    return round(trial.suggest_float(name, low, high, step=step), DIGITS)


def _asked_for(parameter: Parameter, value: ParameterValue) -> bool:
    """Whether the search can ask for a value."""
    if isinstance(parameter, Choice):
        return any(type(choice) is type(value) and choice == value for choice in parameter.choices)
    if isinstance(value, bool | str) or not isinstance(parameter, Number):
        return False
    steps = (value - parameter.low) / parameter.step
    return abs(steps - round(steps)) < TOLERANCE and 0 <= round(steps) < parameter.count()


def _nearest(parameter: Parameter, value: ParameterValue) -> ParameterValue:
    """The number nearest to a value that the search can ask for; other values as they are."""
    if not isinstance(parameter, Number) or isinstance(value, bool | str):
        return value
    step = min(max(round((value - parameter.low) / parameter.step), 0), parameter.count() - 1)
    nearest = round(parameter.low + step * parameter.step, DIGITS)
    return int(nearest) if parameter.integer else float(nearest)


def _words(parameter: Parameter) -> str:
    other, *values = parameter.only_if or ("",)
    condition = f" where {other} is {' or '.join(map(str, values))}" if values else ""
    if isinstance(parameter, Number):
        return f"{parameter.name} {parameter.low:g} to {parameter.high:g} by {parameter.step:g}{condition}"
    return f"{parameter.name} {' or '.join(map(str, parameter.values()))}{condition}"
