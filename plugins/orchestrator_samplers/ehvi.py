"""Expected hypervolume improvement over recipes, whose parameters depend on each other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from orchestrator_samplers.gaussian import GaussianProcess, Hyperparameters, distances, fitted
from orchestrator_samplers.recipes import Key, Point, Recipes, holds, key_of, parameters_of, point_of, untried

STARTUP = 8
MOST_POINTS = 200
"""Trials that the models are fitted to: the front, then the latest."""
REFIT = 1.1
CANDIDATES, ROUNDS, SURVIVORS = 100, 3, 20
VOLUME_POINTS = 500
MARGIN = 0.1
CLIP = 3.0


class _Fit(NamedTuple):
    clock: int
    names: tuple[str, ...]
    hyperparameters: Hyperparameters


class _Model(NamedTuple):
    """A Gaussian process over some of the points."""

    rows: np.ndarray
    process: GaussianProcess

    def predict(self, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.process.predict(apart if len(self.rows) == apart.shape[2] else apart[:, :, self.rows])


class _Observation(NamedTuple):
    """The values of a trial that the sampler uses."""

    state: TrialState
    point: Point
    key: Key
    values: tuple[float, ...] | None
    constraints: dict[str, float]


class _Memory(NamedTuple):
    """Values that are computed once for all proposals."""

    finished: dict[int, _Observation]
    recipes: Recipes
    fits: dict[str, _Fit]

    def seen(self, trial: FrozenTrial) -> _Observation:
        """Return the observation of a trial, which is computed once when the trial is finished."""
        if trial.number in self.finished:
            return self.finished[trial.number]
        point = point_of(trial.params)
        values = None
        if trial.state == TrialState.COMPLETE and np.isfinite(trial.values).all():
            values = tuple(trial.values)
        seen = _Observation(trial.state, point, key_of(point), values, trial.constraints)
        if trial.state.is_finished():
            self.finished[trial.number] = seen
            if trial.state in (
                TrialState.COMPLETE,
                TrialState.PRUNED,
            ):  # a failed one may lack parameters
                self.recipes.learn(point, trial.distributions)
        return seen


class EhviSampler(BaseSampler):
    """Sampler with a Gaussian process for each objective and constraint, by the expected improvement of the hypervolume.

    The expected improvement of the hypervolume (Emmerich, Giannakoglou and Naujoks 2006) is the integral, over the space that the
    front does not dominate, of the probability that a recipe dominates it; here over random points. It is multiplied by the
    probability that constraints are satisfied (Gardner et al. 2014) and that the recipe can be built at all. Recipes come from an
    evolution: in three rounds good ones are recombined and mutated, and the most promising survive. Conditional parameters are
    covered too, which Optuna's `GPSampler` and `NSGAIISampler` draw at random. No recipe that was tried is proposed again.

    A parameter named `method.parameter` belongs to the choice `method`; others stand alone.

    Args:
        seed: The same seed gives the same proposals for the same results.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._planned: tuple[int, dict[str, Any]] = (-1, {})
        self._memory = _Memory({}, Recipes(), {})

    def reseed_rng(self) -> None:
        """Start another random stream, which Optuna does in each process of a parallel run."""
        self._generator = np.random.default_rng()
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the parameters of a recipe are known only during its suggestions."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return nothing, see `infer_relative_search_space`."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Return the value that is planned for this trial, or a random one if the plan has none."""
        if self._planned[0] != trial.number:
            self._planned = trial.number, self._plan(study, trial)
        value = self._planned[1].get(param_name)
        if value is not None and holds(param_distribution, value):
            return value
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _plan(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        seen = [self._memory.seen(t) for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.params]
        complete = list({s.key: s for s in seen if s.values is not None}.values())  # duplicates have one result
        if len(complete) < STARTUP:
            return {}
        return parameters_of(_Proposal(study.directions, seen, complete, self._generator, self._memory).best())


class _Proposal:
    """One proposal, from all observations."""

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        seen: Sequence[_Observation],
        complete: Sequence[_Observation],
        generator: np.random.Generator,
        memory: _Memory,
    ) -> None:
        self._generator, self._recipes, self._fits = generator, memory.recipes, memory.fits
        self._tried = {s.key for s in seen}
        signs = np.array([1.0 if d == StudyDirection.MINIMIZE else -1.0 for d in directions])
        values = np.array([s.values for s in complete])
        values = signs * np.where((values > 0).all(axis=0), np.log(np.where(values > 0, values, 1.0)), values)
        values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
        feasible = np.array([all(v <= 0 for v in s.constraints.values()) for s in complete])
        self._feasible = bool(feasible.any())
        able = np.flatnonzero(feasible | (not self._feasible))
        front = able[_front(values[able])]
        self._parents = [complete[i].point for i in front]
        self._open = _undominated(values[front], values[able].max(axis=0), generator)

        on_front = set(front.tolist())
        chosen = [*front.tolist(), *(i for i in reversed(range(len(complete))) if i not in on_front)][:MOST_POINTS]
        built = [complete[i] for i in chosen]
        rejected = [s for s in seen if s.state == TrialState.PRUNED and s.constraints][-MOST_POINTS // 2 :]
        elsewhere = {s.key for s in seen if s.state != TrialState.FAIL}  # released, or a duplicate: no failure
        failures = {s.key: s for s in seen if s.state == TrialState.FAIL and s.key not in elsewhere}
        failed = list(failures.values())[-MOST_POINTS // 2 :]
        self._clock = len(complete) + len(rejected) + len(failed)
        self._everyone = [s.point for s in built]
        self._points = self._recipes.encoded([s.point for s in (*built, *rejected, *failed)])
        self._apart = distances(self._points, self._points)
        rows = np.arange(len(self._points))
        self._objectives = [self._model(f"objective {k}", rows[: len(built)], values[chosen, k]) for k in range(len(signs))]

        self._assume_running([s.point for s in seen if s.state == TrialState.RUNNING])

        self._limits: list[tuple[_Model, float]] = []
        judged = [*built, *rejected]
        for name in sorted({name for s in judged for name in s.constraints}):
            having = np.array([i for i, s in enumerate(judged) if name in s.constraints])
            excess = np.array([judged[i].constraints[name] for i in having])
            # A constraint that only rejected candidates have gives no evidence of where it is satisfied.
            if (excess > 0).any() and (having < len(built)).any():
                scale = max(float(np.abs(excess).mean()), 1e-12)
                self._limits.append((self._model(f"constraint {name}", having, excess / scale), 0.0))
        if failed:
            rows_of_all = np.append(rows[: len(built)], rows[len(judged) :])
            self._limits.append((self._model("failure", rows_of_all, (rows_of_all >= len(judged)).astype(float)), 0.5))

    def _model(self, name: str, rows: np.ndarray, values: np.ndarray) -> _Model:
        """Return a model of some points' values; its hyperparameters are fitted again if there are enough new points."""
        low, high = np.quantile(values, (0.25, 0.75))
        if high > low:  # a network with no quality left must not hide the differences between the others
            values = np.clip(values, low - CLIP * (high - low), high + CLIP * (high - low))
        apart = self._apart if len(rows) == len(self._points) else self._apart[:, rows[:, None], rows[None, :]]
        fit, names = self._fits.get(name), self._recipes.names
        if fit is None or fit.names != names or self._clock >= REFIT * fit.clock:
            start = fit.hyperparameters if fit is not None and fit.names == names else Hyperparameters.usual(len(names))
            spread = max(float(values.std()), 1e-12)
            fit = _Fit(self._clock, names, fitted(apart, (values - values.mean()) / spread, start))
            self._fits[name] = fit
        return _Model(rows, GaussianProcess(apart, values, fit.hyperparameters))

    def _assume_running(self, running: Sequence[Point]) -> None:
        """Remove the space that running candidates will probably dominate (Ginsbourger et al. 2010, kriging believer)."""
        if running:
            apart = distances(self._recipes.encoded(running), self._points)
            predicted = np.column_stack([model.predict(apart)[0] for model in self._objectives])
            left = _outside(self._open, predicted)
            self._open = left if len(left) else self._open

    def best(self) -> Point:
        """Return the recipe of the greatest expected gain among the generated ones."""
        gains: dict[Key, float] = {}
        points: dict[Key, Point] = {}
        parents = self._parents
        for _ in range(ROUNDS):
            children = [self._recipes.child(parents, self._everyone, self._generator) for _ in range(CANDIDATES)]
            fresh = untried(children, self._tried | points.keys())
            if fresh:
                points |= fresh
                gains |= dict(zip(fresh, self._gain(list(fresh.values())).tolist(), strict=True))
            best = sorted(gains, key=gains.__getitem__, reverse=True)[:SURVIVORS]
            parents = [points[key] for key in best] or parents
        return points[best[0]] if best else {}

    def _gain(self, points: Sequence[Point]) -> np.ndarray:
        """Return the expected gain of hypervolume times the probability of feasibility (that alone while nothing is feasible)."""
        apart = distances(self._recipes.encoded(points), self._points)
        gain = np.ones(len(points))
        for model, limit in self._limits:
            mean, spread = model.predict(apart)
            gain *= ndtr((limit - mean) / spread)
        if not self._feasible:
            return gain
        dominates = np.ones((len(points), len(self._open)))
        for k, model in enumerate(self._objectives):
            mean, spread = model.predict(apart)
            dominates *= ndtr((self._open[None, :, k] - mean[:, None]) / spread[:, None])
        return np.asarray(gain * dominates.mean(axis=1))


def _undominated(front: np.ndarray, worst: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return random points of the box around the front that the front does not dominate."""
    span = np.maximum(worst - front.min(axis=0), 1e-9)
    low, high = front.min(axis=0) - MARGIN * span, worst + MARGIN * span
    points = generator.uniform(low, high, size=(VOLUME_POINTS, front.shape[1]))
    return _outside(points, front)


def _outside(points: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Return the points that the front does not dominate."""
    dominated = np.logical_and.reduce(front[None, :, :] <= points[:, None, :], axis=2)
    return np.asarray(points[~np.logical_or.reduce(dominated, axis=1)])


def _front(values: np.ndarray) -> np.ndarray:
    """Return the indices of the rows that no other dominates (minimised)."""
    left: np.ndarray = np.lexsort(values.T[::-1])
    front = []
    while len(left):
        best, left = left[0], left[1:]  # nothing that comes later in this order dominates it
        front.append(int(best))
        left = left[np.logical_or.reduce(values[left] < values[best], axis=1)]
    return np.array(front)
