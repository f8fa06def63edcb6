"""The search space of a task on a target, computed from the methods' declarations: illegal recipes are never proposed."""

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
STARTERS_SHARE = 4  # one of so many trials: more leave the sampler less than it needs (bench/samplers.py)
MOST_CHEAPEST = 2
TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """Position in the order of a recipe: one method of a family, or none."""

    family: str
    methods: tuple[str, ...]


class SearchSpace:
    """All legal recipes.

    The choice of a slot is an Optuna parameter named after the family; a method's parameters are `method.parameter` and
    exist only if the method was chosen.

    Args:
        offers: The methods in use, with their search ranges.
        methods: Their declarations.
    """

    def __init__(self, offers: Sequence[OfferReply], methods: Mapping[str, Method]) -> None:
        self._offers = {offer.method: offer for offer in offers if offer.refused is None}
        self._methods = {name: methods[name] for name in self._offers}
        ordered = families_in_order(self._methods)
        self.slots = tuple(Slot(family=family, methods=names) for family, names in ordered.items())

    def _choices(self, slot: Slot, before: Sequence[str]) -> tuple[str, ...]:
        """Return the methods that may follow others in a slot; empty if none may.

        A method that requires an earlier one is its recovery. If one is offered, every recipe has it, for a pruned structure that
        is not trained again is seldom worth a trial.
        """
        families = {self._methods[name].family for name in before}
        exported = any(not isinstance(self._methods[name], TorchMethod) for name in before)
        fitting = [name for name in slot.methods if not exported or isinstance(self._methods[name], OnnxMethod)]
        needs = {name: self._methods[name].requires for name in fitting}
        allowed = tuple(name for name in fitting if not needs[name] or needs[name] & families)
        recovery = any(needs[name] for name in allowed)
        return allowed if recovery or not allowed else (NONE, *allowed)

    def _label(self, slot: Slot, choices: Sequence[str]) -> str:
        """Return the name of a slot's parameter: a narrower set of choices has its own name, for Optuna needs one set a name."""
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
        """Return the Optuna parameters that give a recipe."""
        parameters: dict[str, ParameterValue] = {}
        earlier: list[str] = []
        chosen = {self._methods[step.method].family: step for step in recipe.steps}
        for slot in self.slots:
            choices = self._choices(slot, earlier)
            if not choices:
                continue
            name = self._label(slot, choices)
            step = chosen.get(slot.family)
            parameters[name] = NONE if step is None else step.method
            if step is not None:
                parameters |= {f"{step.method}.{key}": value for key, value in step.parameters.items()}
                earlier.append(step.method)
        return parameters

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """Yield the methods of every legal recipe, at most one from each slot."""
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
        """Return the number of different recipes, without the original."""
        counts = {name: _count(offer.parameters) for name, offer in self._offers.items()}
        return sum(int(np.prod([counts[name] for name in chosen])) for chosen in self.combinations() if chosen)

    def starters(self, trials: int | None = None) -> list[Recipe]:
        """Return the recipes that are tried first: single methods, the extremes, then longer combinations.

        The extremes are the gentlest recipe of each family that changes a network gradually, and the cheapest models of the
        space: every family at once, each at its far end. They span the range that the sampler then explores. All others have
        their default parameters.

        If a search tries several runtimes, each recipe is tried in all of them, so that they can be compared.

        Args:
            trials: The run's budget; of more recipes than a quarter of it those of usual methods are taken first.
        """
        combinations = sorted((chosen for chosen in self.combinations() if chosen), key=len)
        most = MOST_STARTERS if trials is None else max(LEAST_STARTERS, trials // STARTERS_SHARE)
        runtimes = [name for name in self._offers if self._methods[name].family == FAMILY]
        if not runtimes:
            return self._first(combinations, most)
        plain = [chosen for chosen in combinations if not set(chosen) & set(runtimes)]
        recipes = [Recipe(steps=(self._step(name, {}),)) for name in runtimes]  # the original
        for recipe in self._first(plain, max(LEAST_STARTERS // 2, most // (1 + len(runtimes)))):
            recipes += [recipe, *(Recipe(steps=(*recipe.steps, self._step(name, {}))) for name in runtimes)]
        return [recipe for recipe in recipes if tuple(step.method for step in recipe.steps) in self._legal]

    def _first(self, combinations: list[tuple[str, ...]], most: int) -> list[Recipe]:
        extremes = self._extremes([chosen for chosen in combinations if self._usual(chosen)] or combinations)[: most // 3]
        if len(combinations) > most - len(extremes):
            combinations.sort(key=lambda chosen: (not self._usual(chosen), len(chosen)))
            combinations = sorted(combinations[: most - len(extremes)], key=len)
        plain = [self._recipe(chosen, lambda p: p.start) for chosen in combinations]
        singles = next((k for k, recipe in enumerate(plain) if len(recipe.steps) > 1), len(plain))
        return list({r.digest: r for r in (*plain[:singles], *extremes, *plain[singles:])}.values())

    def _extremes(self, combinations: Sequence[tuple[str, ...]]) -> list[Recipe]:
        """Return the cheapest and the gentlest recipes of these combinations, which are sorted by their length."""

        def gradual(chosen: tuple[str, ...]) -> list[str]:
            return [
                name for name in chosen if any(p.cheaper is not None and p.count() > 1 for p in self._offers[name].parameters)
            ]

        gentle: dict[str, Recipe] = {}
        for chosen in combinations:
            if len(names := gradual(chosen)) == 1:
                gentle.setdefault(self._methods[names[0]].family, self._recipe(chosen, lambda p: p.gentlest))
        able = [chosen for chosen in combinations if gradual(chosen)]
        longest = max(map(len, able), default=0)
        cheap = [self._recipe(chosen, lambda p: p.cheapest) for chosen in able if len(chosen) == longest]
        return [*cheap[:1], *gentle.values(), *cheap[1:MOST_CHEAPEST]]

    def _usual(self, chosen: Sequence[str]) -> bool:
        return all(self._methods[name].usual for name in chosen)

    def _recipe(self, chosen: Sequence[str], value: Callable[[Parameter], ParameterValue]) -> Recipe:
        return Recipe(steps=tuple(self._step(n, assigned(self._offers[n].parameters, value)) for n in chosen))

    def fitted(self, recipe: Recipe) -> Recipe | None:
        """Return another run's recipe with its numbers moved to the nearest that are offered, or None if this search has none."""
        if not recipe.steps or tuple(step.method for step in recipe.steps) not in self._legal:
            return None
        steps = []
        for step in recipe.steps:
            offered = {p.name: p for p in self._offers[step.method].parameters}
            if not step.parameters.keys() <= offered.keys():
                return None
            steps.append(self._step(step.method, {name: _nearest(offered[name], v) for name, v in step.parameters.items()}))
        fitted = Recipe(steps=tuple(steps))
        return fitted if self.holds(fitted) else None

    def holds(self, recipe: Recipe) -> bool:
        """Return True if this search can propose a recipe: its methods, in this order, within these ranges."""
        chosen = tuple(step.method for step in recipe.steps)
        if not chosen or chosen not in self._legal:
            return False
        for step in recipe.steps:
            offered = {p.name: p for p in self._offers[step.method].parameters}
            existing = {name for name, p in offered.items() if p.exists(step.parameters)}
            if step.version != self._methods[step.method].version or existing != step.parameters.keys():
                return False
            if not all(_in_range(offered[name], value) for name, value in step.parameters.items()):
                return False
        return True

    def random(self, generator: np.random.Generator) -> Recipe:
        """Return a recipe that is drawn uniformly over combinations, then over their parameters."""
        combinations = [chosen for chosen in self.combinations() if chosen]
        chosen = combinations[generator.integers(len(combinations))]
        return self._recipe(chosen, lambda p: p.values()[int(generator.integers(p.count()))])

    def describe(self) -> list[str]:
        """Return a description of the space, one line a method."""
        lines = []
        for slot in self.slots:
            for name in slot.methods:
                ranges = ", ".join(_describe_parameter(p) for p in self._offers[name].parameters)
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


def _in_range(parameter: Parameter, value: ParameterValue) -> bool:
    """Return True if the search can propose a value."""
    if isinstance(parameter, Choice):
        return any(type(choice) is type(value) and choice == value for choice in parameter.choices)
    if isinstance(value, bool | str) or not isinstance(parameter, Number):
        return False
    steps = (value - parameter.low) / parameter.step
    return abs(steps - round(steps)) < TOLERANCE and 0 <= round(steps) < parameter.count()


def _nearest(parameter: Parameter, value: ParameterValue) -> ParameterValue:
    """Return the number nearest to a value that the search can propose; other values as they are."""
    if not isinstance(parameter, Number) or isinstance(value, bool | str):
        return value
    step = min(max(round((value - parameter.low) / parameter.step), 0), parameter.count() - 1)
    nearest = round(parameter.low + step * parameter.step, DIGITS)
    return int(nearest) if parameter.integer else float(nearest)


def _describe_parameter(parameter: Parameter) -> str:
    other, *values = parameter.only_if or ("",)
    condition = f" where {other} is {' or '.join(map(str, values))}" if values else ""
    if isinstance(parameter, Number):
        return f"{parameter.name} {parameter.low:g} to {parameter.high:g} by {parameter.step:g}{condition}"
    return f"{parameter.name} {' or '.join(map(str, parameter.values()))}{condition}"
