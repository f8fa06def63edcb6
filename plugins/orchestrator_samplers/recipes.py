"""Recipes as points of a sampler: choices of methods with their parameters, some of which depend on other choices."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator_samplers.gaussian import INACTIVE

Part = tuple[Any, tuple[tuple[str, Any], ...]]
"""The choice of a slot, and the parameters that belong to it."""
Point = dict[str, Part]
"""A recipe by slots."""
Key = frozenset[tuple[str, Part]]

DIGITS = 9
MOST_CELLS = 20_000
"""Bound of cached columns of parts (some megabytes); most parts belong to points that were never tried."""
RECOMBINED, EXCHANGED, ANY, AMONG_GOOD, STEPWISE = 0.6, 0.4, 0.05, 0.5, 0.5
"""Shares: children of two parents; choices of the second parent, or any; good second parents; numbers that move one step."""


class Recipes:
    """The space as known from the trials, and new points of it.

    A parameter `method.parameter` belongs to the choice `method`; any other is a slot, a choice by itself. Slots that depend on
    others (the recovery after a pruning) are recognised by choices that occur only together with them.

    Attributes:
        names: Parameters that can vary, in the order of the columns of `encoded`.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._spaces: dict[str, BaseDistribution] = {}
        self._column: dict[str, int] = {}
        self._cells: dict[tuple[str, Part], list[tuple[int, float]]] = {}
        self._skeletons: set[frozenset[tuple[str, Any]]] = set()
        self._slots: list[str] = []
        self._reasons: dict[str, set[tuple[str, Any]]] = {}
        self._layouts: dict[Any, dict[frozenset[str], set[tuple[str, Any]]]] = {}

    def learn(self, point: Point, spaces: Mapping[str, BaseDistribution]) -> None:
        """Add a recipe with all its parameters."""
        if not spaces.keys() <= self._spaces.keys():
            self._spaces.update(spaces)
            self.names = tuple(sorted(name for name, space in self._spaces.items() if not space.single()))
            self._column = {name: k for k, name in enumerate(self.names)}
            self._cells.clear()
        for choice, values in point.values():
            layout = self._layouts.setdefault(choice, {}).setdefault(frozenset(name for name, _ in values), set())
            layout.update((n, v) for n, v in values if isinstance(spaces[n], CategoricalDistribution | IntDistribution))
        skeleton = frozenset((slot, part[0]) for slot, part in point.items())
        if skeleton not in self._skeletons:
            self._skeletons.add(skeleton)
            self._order()

    def _order(self) -> None:
        """Order the slots; those that depend on others come last."""
        slots = sorted({slot for skeleton in self._skeletons for slot, _ in skeleton})
        self._reasons = {}
        for slot in slots:
            having = {s for s in self._skeletons if any(name == slot for name, _ in s)}
            if len(having) < len(self._skeletons):
                elsewhere = {pair for s in self._skeletons - having for pair in s}
                self._reasons[slot] = {pair for s in having for pair in s if pair[0] != slot} - elsewhere
        self._slots = sorted(slots, key=lambda slot: slot in self._reasons)

    def encoded(self, points: Sequence[Point]) -> np.ndarray:
        """Return an array of shape (points, names), see `gaussian.distances`."""
        rows = np.full((len(points), len(self.names)), INACTIVE)
        for row, point in zip(rows, points, strict=True):
            for item in point.items():
                cells = self._cells.get(item)
                if cells is None:
                    if len(self._cells) >= MOST_CELLS:
                        self._cells.clear()
                    values = ((item[0], item[1][0]), *item[1][1])
                    cells = [(self._column[n], _scaled(self._spaces[n], v)) for n, v in values if n in self._column]
                    self._cells[item] = cells
                for column, value in cells:
                    row[column] = value
        return rows

    def child(self, parents: Sequence[Point], everyone: Sequence[Point], draw: np.random.Generator) -> Point:
        """Return a mutation of a good point or of its recombination with another."""
        child = parents[int(draw.integers(len(parents)))]
        if draw.random() < RECOMBINED:
            others = parents if draw.random() < AMONG_GOOD else everyone
            child = self._recombined(child, others[int(draw.integers(len(others)))], everyone, draw)
        varied = sum(name in self._column for _, values in child.values() for name, _ in values)
        return {slot: self._existing(self._mutated(part, 1.0 / max(1, varied), draw)) for slot, part in child.items()}

    def _existing(self, part: Part) -> Part:
        """Return the part without parameters that exist only beside other values of the choice's parameters.

        The condition is learnt from the trials: a value that came with the parameter, and never without it.
        """
        choice, values = part
        layouts = self._layouts.get(choice, {})
        if len(layouts) < 2:
            return part

        def exists(name: str) -> bool:
            without = [pairs for names, pairs in layouts.items() if name not in names]
            having = (pairs for names, pairs in layouts.items() if name in names)
            return not without or not set(values).isdisjoint(set[tuple[str, Any]]().union(*having).difference(*without))

        return choice, tuple((name, value) for name, value in values if exists(name))

    def _recombined(self, first: Point, second: Point, everyone: Sequence[Point], draw: np.random.Generator) -> Point:
        """Return the first point with some parts of the second or of any."""
        child: Point = {}
        chosen: set[tuple[str, Any]] = set()
        for slot, chance in zip(self._slots, draw.random(len(self._slots)), strict=True):
            reasons = self._reasons.get(slot)
            if reasons is not None and reasons.isdisjoint(chosen):
                continue
            space = self._spaces[slot]
            if chance < ANY and isinstance(space, CategoricalDistribution):
                choice = space.choices[draw.integers(len(space.choices))]
                known = [p[slot] for p in everyone if slot in p and p[slot][0] == choice]
                # The parameters of a choice that was never tried are drawn at random.
                child[slot] = known[int(draw.integers(len(known)))] if known else (choice, ())
            else:
                order = (second, first) if chance < ANY + EXCHANGED else (first, second)
                part = next((p[slot] for p in (*order, *everyone) if slot in p), None)
                if part is None:
                    continue
                child[slot] = part
            chosen.add((slot, child[slot][0]))
        return child

    def _mutated(self, part: Part, rate: float, draw: np.random.Generator) -> Part:
        choice, values = part
        if not values:
            return part
        hit = draw.random(len(values)) < rate
        if not hit.any():
            return part
        changed = (self._changed(n, v, draw) if h and n in self._column else v for (n, v), h in zip(values, hit, strict=True))
        return choice, tuple((name, value) for (name, _), value in zip(values, changed, strict=True))

    def _changed(self, name: str, value: Any, draw: np.random.Generator) -> Any:
        """Return another value of a parameter."""
        space = self._spaces[name]
        if isinstance(space, CategoricalDistribution):
            others = [choice for choice in space.choices if choice != value]
            return others[draw.integers(len(others))]
        if not isinstance(space, FloatDistribution | IntDistribution):
            return value
        if space.step is None:
            return float(draw.uniform(space.low, space.high))
        steps, now = round((space.high - space.low) / space.step), round((value - space.low) / space.step)
        near = [k for k in (now - 1, now + 1) if 0 <= k <= steps]
        k = near[draw.integers(len(near))] if draw.random() < STEPWISE else int(draw.integers(steps + 1))
        moved = round(space.low + k * space.step, DIGITS)
        return int(moved) if isinstance(space, IntDistribution) else float(moved)


def point_of(parameters: Mapping[str, Any]) -> Point:
    """Return a trial's parameters by slots; numbers are rounded, so that equal ones have equal bits."""
    values = sorted((name, round(value, DIGITS) if type(value) is float else value) for name, value in parameters.items())
    slots = {name: value for name, value in values if "." not in name}
    belonging: dict[str, list[tuple[str, Any]]] = {str(choice): [] for choice in slots.values()}
    for name, value in values:
        if "." in name:
            owner = belonging.get(name.partition(".")[0])
            if owner is None:
                slots[name] = value
            else:
                owner.append((name, value))
    return {slot: (choice, tuple(belonging.get(str(choice), ()))) for slot, choice in slots.items()}


def parameters_of(point: Point) -> dict[str, Any]:
    """Return the parameters of a point, the inverse of `point_of`."""
    return {slot: part[0] for slot, part in point.items()} | {n: v for _, values in point.values() for n, v in values}


def key_of(point: Point) -> Key:
    """Return a key that equal points share."""
    return frozenset(point.items())


def untried(points: Collection[Point], tried: Collection[Key]) -> dict[Key, Point]:
    """Return the points that were not tried, each once."""
    return {key: point for point in points if (key := key_of(point)) not in tried}


def holds(space: BaseDistribution, value: Any) -> bool:
    """Return True if a parameter may have a value."""
    if isinstance(space, CategoricalDistribution):
        return value in space.choices
    return isinstance(space, FloatDistribution | IntDistribution) and space.low <= value <= space.high


def _scaled(space: BaseDistribution, value: Any) -> float:
    if isinstance(space, FloatDistribution | IntDistribution):
        return float((value - space.low) / (space.high - space.low))
    return float(space.to_internal_repr(value))
