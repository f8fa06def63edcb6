"""Samplers on a space whose parameters depend on each other, told of what failed and of what broke limits."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase
from optuna.trial import TrialState

from bench import sampler_replay as replay
from orchestrator.building.protocol import OfferReply
from orchestrator.plugin import Choice, Method, Number, OnnxMethod, TorchMethod
from orchestrator.plugin.registry import Registry
from orchestrator.study.run.presets import load_preset
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe
from orchestrator_samplers.ehvi import EhviSampler
from orchestrator_samplers.gaussian import INACTIVE, GaussianProcess, Hyperparameters, distances, fitted
from orchestrator_samplers.recipes import Recipes, key_of, parameters_of, point_of

NAMES = [*("ehvi", "nsga2", "nsga3", "random", "tpe"), pytest.param("gp", marks=pytest.mark.slow)]


def method(base: type[Method], name: str, family: str, **declared: Any) -> Method:
    made: Method = type(
        name, (base,), {"name": name, "version": 1, "family": family, "summary": "", "transform": lambda *_: None, **declared}
    )()
    return made


BLOCKS = Number(name="blocks", help="", low=1, high=4, step=1, default=1, integer=True)
METHODS = {
    m.name: m
    for m in (
        method(OnnxMethod, "int8", "number", parameters=(Choice(name="scheme", help="", choices=("a", "b", "c")),)),
        method(OnnxMethod, "float16", "number"),
        method(
            TorchMethod,
            "recovery",
            "recovery",
            after=frozenset({"cut", "morph"}),
            requires=frozenset({"cut", "morph"}),
            parameters=(Number(name="epochs", help="", low=1, high=3, step=1, default=1, integer=True),),
        ),
        method(
            TorchMethod,
            "prune",
            "cut",
            after=frozenset({"morph"}),
            parameters=(
                Number(name="ratio", help="", low=0.1, high=0.7, step=0.1, default=0.3),
                Choice(name="rule", help="", choices=("x", "y")),
            ),
        ),
        method(
            TorchMethod,
            "shrink",
            "morph",
            parameters=(Number(name="blocks", help="", low=1, high=4, step=1, default=1, integer=True),),
        ),
    )
}


def space(*without: str) -> SearchSpace:
    offers = [
        OfferReply(method=m.name, version=1, family=m.family, parameters=m.parameters)
        for m in METHODS.values()
        if m.name not in without
    ]
    return SearchSpace(offers, METHODS)


def figures(recipe: Recipe) -> tuple[float, float, float]:
    """Quality, latency, size of an imagined network."""
    chosen = {step.method: step.parameters for step in recipe.steps}
    ratio, blocks = float(chosen.get("prune", {}).get("ratio", 0.0)), float(chosen.get("shrink", {}).get("blocks", 0))
    quality = 0.9 - 0.2 * ratio**2 - 0.01 * blocks**1.5 + 0.005 * float(chosen.get("recovery", {}).get("epochs", 0))
    quality -= 0.03 * (chosen.get("prune", {}).get("rule") == "y")
    latency, size = 10 * (1 - 0.7 * ratio) * (1 - 0.1 * blocks), 1e6 * (1 - 0.5 * ratio) * (1 - 0.08 * blocks)
    if "float16" in chosen:
        size /= 2
    if "int8" in chosen:
        quality -= {"a": 0.003, "b": 0.02, "c": 0.1}[str(chosen["int8"]["scheme"])]
        latency, size = latency * 0.5, size / 4
    return quality, latency, size


def study_of(sampler: Any) -> optuna.Study:
    return optuna.create_study(sampler=sampler, directions=["maximize", "minimize", "minimize"])


def always_complete(recipe: Recipe) -> TrialState:
    return TrialState.COMPLETE


def search(
    sampler: Any,
    recipes: SearchSpace,
    trials: int,
    told: Callable[[Recipe], TrialState] = always_complete,
    least: float = 0.8,
) -> list[Recipe]:
    study = study_of(sampler)
    found: list[Recipe] = []
    for _ in range(trials):
        trial = study.ask()
        recipe = recipes.suggest(trial)
        state, values = told(recipe), figures(recipe)
        if state != TrialState.FAIL:
            trial.set_constraint("min_quality", least - values[0])
        study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)
        found.append(recipe)
    return found


def sampler(name: str, seed: int = 0) -> Any:
    return Registry.discover().samplers()[name](seed)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_makes_the_same_search(name: str) -> None:
    recipes = space()
    first, again = search(sampler(name), recipes, 30), search(sampler(name), recipes, 30)
    assert [r.identifier for r in first] == [r.identifier for r in again]
    assert [r.identifier for r in first] != [r.identifier for r in search(sampler(name, 1), recipes, 30)]


@pytest.mark.parametrize("name", NAMES)
def test_failed_and_rejected_candidates_do_not_stop_a_search(name: str) -> None:
    def told(recipe: Recipe) -> TrialState:
        if any(step.method == "float16" for step in recipe.steps):
            return TrialState.FAIL
        return TrialState.PRUNED if figures(recipe)[1] > 8 else TrialState.COMPLETE

    recipes = space()
    legal = set(recipes.combinations())
    assert {tuple(step.method for step in recipe.steps) for recipe in search(sampler(name), recipes, 40, told)} <= legal


def test_ehvi_tries_no_recipe_twice() -> None:
    recipes = space("recovery", "shrink")  # 15 prunings or none, 3 schemes and float16 or none
    found = search(EhviSampler(0), recipes, 60)
    fresh = [recipe.identifier for recipe in found[12:]]  # the first are drawn by chance
    assert len(set(fresh)) == len(fresh)


def share(found: list[Recipe]) -> float:
    """Of the volume between useless and perfect that these recipes dominate."""
    best = {tuple(np.round(figures(recipe), 9)) for recipe in found if figures(recipe)[0] >= 0.8}
    marks = np.random.default_rng(0).uniform((0.8, 2.0, 1e5), (0.92, 10.0, 1e6), size=(4000, 3))
    gentler = [(marks[:, 0] <= quality) & (marks[:, 1:] >= costs).all(axis=1) for quality, *costs in best]
    return float(np.any(gentler, axis=0).mean())


def test_ehvi_is_not_blinded_by_a_constraint_that_only_rejected_ones_have() -> None:
    recipes = space()

    def found(odd: int | None) -> list[Recipe]:
        study, asked = study_of(EhviSampler(0)), list[Recipe]()
        for number in range(40):
            trial = study.ask()
            recipe = recipes.suggest(trial)
            if number == odd:
                trial.set_constraint("odd", 0.3)
                study.tell(trial, state=TrialState.PRUNED)
                continue
            study.tell(trial, figures(recipe))
            asked.append(recipe)
        return asked

    assert share(found(9)) > 0.97 * share(found(None))


def test_ehvi_gains_more_hypervolume_than_chance() -> None:
    recipes = space()
    pairs = [(share(search(EhviSampler(k), recipes, 40)), share(search(sampler("random", k), recipes, 120))) for k in range(2)]
    assert all(ours > chance for ours, chance in pairs), pairs


def test_ehvi_turns_away_from_a_method_that_fails() -> None:
    recipes = space()

    def told(recipe: Recipe) -> TrialState:
        return TrialState.FAIL if any(step.method == "int8" for step in recipe.steps) else TrialState.COMPLETE

    found = search(EhviSampler(0), recipes, 60, told)
    tries = [any(step.method == "int8" for step in recipe.steps) for recipe in found]
    assert sum(tries[30:]) <= 3, sum(tries[30:])


def test_ehvi_learns_from_what_was_rejected() -> None:
    recipes = space()
    found = search(
        EhviSampler(0), recipes, 60, lambda r: TrialState.COMPLETE if figures(r)[0] >= 0.85 else TrialState.PRUNED, least=0.85
    )
    rejected = [figures(recipe)[0] < 0.85 for recipe in found]
    by_chance = [figures(recipe)[0] < 0.85 for recipe in search(sampler("random"), recipes, 200)]
    assert np.mean(rejected[20:]) < 0.5 * np.mean(by_chance)


def test_ehvi_looks_for_what_keeps_the_limits_while_nothing_does() -> None:
    recipes = space()
    found = [recipe for seed in (0, 3) for recipe in search(EhviSampler(seed), recipes, 40, least=0.905)[8:]]
    chance = [figures(recipe)[0] >= 0.905 for recipe in search(sampler("random"), recipes, 400)]
    assert np.mean([figures(recipe)[0] >= 0.905 for recipe in found]) > 3 * np.mean(chance)


def test_ehvi_proposes_different_recipes_while_others_are_under_way() -> None:
    recipes, study = space(), study_of(EhviSampler(0))
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, figures(recipes.suggest(trial)))
    asked = [recipes.suggest(study.ask()) for _ in range(5)]
    assert len({recipe.identifier for recipe in asked}) == 5
    costs = np.array([figures(recipe) for recipe in asked])
    assert (costs.std(axis=0) > 0).all()


def test_ready_made_searches_name_samplers_and_methods_that_there_are() -> None:
    registry = Registry.discover()
    files = registry.search_files()
    assert {"quick", "thorough", "no-training", "int8-only"} <= files.keys()
    for name in files:
        settings = load_preset(name, files)
        assert settings.sampler in registry.samplers()
        assert isinstance(settings.methods, str | None) or set(settings.methods) <= registry.methods().keys()


@pytest.mark.slow
def test_default_reaches_in_80_trials_what_chance_reaches_in_200() -> None:
    registry, grid = Registry.discover(), replay.Grid.read()
    yardstick = replay.Yardstick(grid=grid, useful_drop=0.05)
    default = registry.samplers()[load_preset("thorough", registry.search_files()).sampler]

    def reached(factory: Any, seed: int, trials: int) -> float:
        order = replay.search(grid, factory, seed=seed, trials=trials, starters=None, useful_drop=0.05)
        return float(yardstick.curve(order)[-1])

    chance = np.median([reached(registry.samplers()["random"], seed, 200) for seed in range(20, 25)])
    assert all(reached(default, seed, 80) >= chance for seed in range(20, 23))


def test_parts_of_a_recipe_come_back_as_its_parameters() -> None:
    parameters = {
        "cut": "prune",
        "prune.ratio": 0.1 + 0.2,
        "prune.rule": "x",
        "number": "none",
        "recovery[recovery]": "recovery",
        "recovery.epochs": 2,
    }
    point = point_of(parameters)
    assert point["cut"] == ("prune", (("prune.ratio", 0.3), ("prune.rule", "x")))
    assert parameters_of(point) == {**parameters, "prune.ratio": 0.3}
    assert key_of(point) == key_of(point_of({**parameters, "prune.ratio": 0.3}))


def test_children_have_the_parameters_that_their_choices_ask_for() -> None:
    recipes, known = space(), Recipes()
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    points = []
    for _ in range(40):
        trial = study.ask()
        recipes.suggest(trial)
        points.append(point_of(trial.params))
        known.learn(points[-1], trial.distributions)
    generator = np.random.default_rng(0)
    legal = 0
    for _ in range(200):
        child = parameters_of(known.child(points, points, generator))
        fixed: Any = optuna.trial.FixedTrial(child)
        recipe = recipes.suggest(fixed)  # raises where the child lacks a parameter
        legal += recipes.parameters(recipe) == child
    assert legal > 190  # what was always seen together counts as a reason, so now and then one is taken for it


def test_children_have_conditional_parameters_only_beside_their_values() -> None:
    pattern = Choice(name="pattern", help="", choices=("free", "2:4"))
    ratio = Number(name="ratio", help="", low=0.1, high=0.9, step=0.1, default=0.2, only_if=("pattern", "free"))
    sparse = method(TorchMethod, "sparse", "cut", parameters=(pattern, ratio))
    offer = OfferReply(method="sparse", version=1, family="cut", parameters=(pattern, ratio), refused=None)
    recipes, known, points = SearchSpace([offer], {"sparse": sparse}), Recipes(), []
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        recipes.suggest(trial)
        points.append(point_of(trial.params))
        known.learn(points[-1], trial.distributions)
    generator = np.random.default_rng(0)
    children = [parameters_of(known.child(points, points, generator)) for _ in range(200)]
    assert {"2:4", "free"} <= {child.get("sparse.pattern") for child in children}
    assert not any("sparse.ratio" in child for child in children if child.get("sparse.pattern") == "2:4")


def test_process_foretells_effects_that_add_up() -> None:
    generator = np.random.default_rng(0)
    points = np.column_stack(
        [generator.integers(0, 3, 60), generator.random(60), np.where(generator.random(60) < 0.5, INACTIVE, generator.random(60))]
    )

    def truth(x: np.ndarray) -> np.ndarray:
        return np.array([0.0, 1.0, 3.0])[x[:, 0].astype(int)] + 2 * x[:, 1] + np.where(x[:, 2] == INACTIVE, -1.0, x[:, 2])

    values = truth(points[:50])
    apart = distances(points[:50], points[:50])
    found = fitted(apart, (values - values.mean()) / values.std(), Hyperparameters.usual(3))
    process = GaussianProcess(apart, values, found)
    mean, spread = process.predict(distances(points[50:], points[:50]))
    assert np.abs(mean - truth(points[50:])).max() < 0.4
    assert (np.abs(mean - truth(points[50:])) < 3 * spread).all()
    assert process.predict(apart)[1].max() < spread.max()


def test_distances_count_a_missing_parameter_as_another_choice() -> None:
    left = np.array([[0.0, 0.25], [2.0, INACTIVE]])
    assert np.array_equal(distances(left, left), [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])


class TestContract(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own tests of samplers."""

    @pytest.fixture(autouse=True)
    def _quiet(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield

    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: EhviSampler(0)
