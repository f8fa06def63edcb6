"""The space holds legal recipes only, computed from what methods declare."""

from typing import Any, ClassVar

import numpy as np
import optuna
import pytest

from orchestrator.building.protocol import OfferReply
from orchestrator.errors import PluginError
from orchestrator.plugin import Choice, Method, Number, OnnxMethod, Parameter, Runtime, TorchMethod, TorchToOnnxMethod
from orchestrator.plugin.runtime_step import with_runtimes
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.recipe import Recipe, Step


def method(base: type[Method], name: str, family: str, **declared: Any) -> Method:
    body = {"name": name, "version": 1, "family": family, "summary": "", "transform": lambda *_: None, **declared}
    made: Method = type(name, (base,), body)()
    return made


RATIO: ClassVar[Parameter] = Number(name="ratio", help="", low=0.1, high=0.3, step=0.1, default=0.1)  # type: ignore[misc]
SCHEME = Choice(name="scheme", help="", choices=("u8s8", "s8s8"))
METHODS = {
    m.name: m
    for m in (
        method(OnnxMethod, "a-static", "a-quantization", parameters=(SCHEME,)),
        method(TorchMethod, "recovery", "b-recovery", after=frozenset({"cut", "morph"}), requires=frozenset({"cut", "morph"})),
        method(TorchMethod, "prune", "cut", parameters=(RATIO,), after=frozenset({"morph"})),
        method(TorchMethod, "shrink", "morph"),
    )
}


def space(**changes: Any) -> SearchSpace:
    offers = [
        OfferReply(method=m.name, version=1, family=m.family, parameters=m.parameters, refused=changes.get(m.name))
        for m in METHODS.values()
    ]
    return SearchSpace(offers, METHODS)


def test_slots_stand_in_the_declared_order_and_files_come_last() -> None:
    assert [slot.family for slot in space().slots] == ["morph", "cut", "b-recovery", "a-quantization"]


def test_only_legal_combinations_are_there() -> None:
    found = {" ".join(chosen) for chosen in space().combinations()}
    assert found == {
        "",
        "a-static",
        "shrink recovery",
        "shrink recovery a-static",
        "prune recovery",
        "prune recovery a-static",
        "shrink prune recovery",
        "shrink prune recovery a-static",
    }


def test_structure_goes_without_recovery_where_none_is_offered() -> None:
    found = {" ".join(chosen) for chosen in space(recovery="no train split").combinations()}
    assert "prune" in found
    assert not any("recovery" in chosen for chosen in found)


def test_size_counts_every_recipe_but_the_original() -> None:
    s = space()
    # morph x cut(3 ratios) x quantization(2 schemes): (1 + 1) * (1 + 3) * (1 + 2) - 1
    assert s.size() == 23
    generator = np.random.default_rng(0)
    assert len({s.random(generator).identifier for _ in range(2000)}) == 23


def test_every_suggested_recipe_is_legal_and_comes_back_from_its_parameters() -> None:
    s = space()
    legal = set(s.combinations())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        recipe = s.suggest(study.ask())
        assert tuple(step.method for step in recipe.steps) in legal
        study.enqueue_trial(s.parameters(recipe))
        assert s.suggest(study.ask()) == recipe


def test_every_starter_is_tried_in_every_runtime() -> None:
    """Else a search may end without an answer to what was asked: which runtime is faster."""
    more = [type(name, (Runtime,), {"name": name, "version": str, "load": staticmethod(str)})() for name in ("twin", "third")]
    methods = with_runtimes(METHODS, more)
    offers = [OfferReply(method=m.name, version=1, family=m.family, parameters=m.parameters) for m in methods.values()]
    for trials in (8, 24, 200, None):
        starters = SearchSpace(offers, methods).starters(trials)
        told = [tuple(step.method for step in recipe.steps) for recipe in starters]
        assert told[:2] == [("on-twin",), ("on-third",)], "the original"
        here = [chosen for chosen in told if not chosen[-1].startswith("on-")]
        assert len(here) >= 4
        assert set(told) == {(*chosen, *there) for chosen in (*here, ()) for there in ((), ("on-twin",), ("on-third",))} - {()}


def test_starters_are_all_combinations_at_their_defaults_the_short_ones_first() -> None:
    starters = space().starters()
    assert [len(r.steps) for r in starters] == sorted(len(r.steps) for r in starters)
    assert len(starters) == 7
    assert all(s.parameters == {"ratio": 0.1} for r in starters for s in r.steps if s.method == "prune")


def test_contradicting_declarations_are_an_error_that_names_the_circle() -> None:
    methods = {
        "x": method(TorchMethod, "x", "x", after=frozenset({"y"})),
        "y": method(TorchMethod, "y", "y", after=frozenset({"x"})),
    }
    offers = [OfferReply(method=n, version=1, family=n) for n in methods]
    with pytest.raises(PluginError, match="contradict each other"):
        SearchSpace(offers, methods)


def test_digests_are_equal_for_equal_recipes_and_differ_for_others() -> None:
    one, other = space().starters()[:2]
    assert one.digest == space().starters()[0].digest
    assert one.digest != other.digest
    assert type(one).from_json(one.as_json()) == one


def test_what_comes_before_declares_the_order_as_well_as_what_comes_after() -> None:
    methods = {
        "x": method(TorchMethod, "x", "x"),
        "y": method(TorchMethod, "y", "y", before=frozenset({"x"})),
        "a": method(OnnxMethod, "a", "a", after=frozenset({"z"})),
        "z": method(OnnxMethod, "z", "z"),
    }
    offers = [OfferReply(method=n, version=1, family=m.family) for n, m in methods.items()]
    assert [slot.family for slot in SearchSpace(offers, methods).slots] == ["y", "x", "z", "a"]


def test_method_that_takes_a_module_does_not_follow_one_that_gives_a_file() -> None:
    methods = {
        "prune": method(TorchMethod, "prune", "cut"),
        "rewrite": method(OnnxMethod, "rewrite", "graph", before=frozenset({"quantization"})),
        "qat": method(TorchToOnnxMethod, "qat", "quantization", after=frozenset({"graph"})),
        "static": method(OnnxMethod, "static", "quantization", after=frozenset({"graph"})),
    }
    offers = [OfferReply(method=n, version=1, family=m.family) for n, m in methods.items()]
    made = SearchSpace(offers, methods)
    found = {" ".join(chosen) for chosen in made.combinations()}
    assert found == {"", "static", "qat", "rewrite", "rewrite static"} | {
        f"prune{rest}" for rest in ("", " static", " qat", " rewrite", " rewrite static")
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = {tuple(step.method for step in made.suggest(study.ask()).steps) for _ in range(200)}
    assert asked == set(made.combinations())


def test_usual_methods_start_where_the_budget_does_not_pay_for_all() -> None:
    methods = {f"m{k}": method(TorchMethod, f"m{k}", f"f{k}", usual=k < 3) for k in range(6)}
    offers = [OfferReply(method=n, version=1, family=m.family) for n, m in methods.items()]
    starters = SearchSpace(offers, methods).starters(trials=10)
    assert len(starters) == 8
    assert sum(all(methods[s.method].usual for s in r.steps) for r in starters) == 7, "all combinations of the usual ones"
    assert [len(r.steps) for r in starters] == sorted(len(r.steps) for r in starters)


def test_a_search_begins_with_the_extremes_too() -> None:
    cut = Number(name="ratio", help="", low=0.1, high=0.55, step=0.2, default=0.3, cheaper="high")
    width = Choice(name="width", help="", choices=(0.75, 0.5, 0.9), cheaper="low")
    methods = {
        "prune": method(TorchMethod, "prune", "cut", parameters=(cut,), before=frozenset({"morph"})),
        "narrow": method(TorchMethod, "narrow", "morph", parameters=(width,)),
        "int8": method(OnnxMethod, "int8", "quantization"),
        "odd": method(TorchMethod, "odd", "odd", parameters=(cut,), usual=False),
    }
    offers = [OfferReply(method=n, version=1, family=m.family, parameters=m.parameters) for n, m in methods.items()]
    starters = SearchSpace(offers, methods).starters(trials=64)
    told = [{s.method: next(iter(s.parameters.values()), None) for s in recipe.steps} for recipe in starters]
    singles = [recipe for recipe in told if len(recipe) == 1]
    assert told[: len(singles) - 2] == singles[:-2], "single methods first, at their defaults"
    cheapest = told.index({"prune": 0.5, "narrow": 0.5, "int8": None})  # 0.5: the last that the search asks for below 0.55
    gentlest = [told.index({"prune": 0.1}), told.index({"narrow": 0.9})]
    assert max(cheapest, *gentlest) < told.index({"prune": 0.3, "int8": None})
    assert len(told) == len({recipe.digest for recipe in starters}) <= 16


def test_recipes_of_another_run_are_told_from_those_that_cannot_be_asked_for() -> None:
    s = space()
    generator = np.random.default_rng(0)
    for _ in range(50):
        assert s.holds(s.random(generator))

    def recipe(*steps: tuple[str, dict[str, Any]], version: int = 1) -> Recipe:
        return Recipe(steps=tuple(Step(method=name, version=version, parameters=values) for name, values in steps))

    cut, recovery = ("prune", {"ratio": 0.2}), ("recovery", {})
    assert s.holds(recipe(cut, recovery))
    assert not s.holds(recipe(cut)), "without its recovery"
    assert not s.holds(recipe(recovery, cut)), "in another order"
    assert not s.holds(recipe(cut, recovery, version=2))
    assert not s.holds(recipe(("prune", {"ratio": 0.25}), recovery)), "off the grid"
    assert not s.holds(recipe(("prune", {"ratio": 0.4}), recovery)), "out of range"
    assert not s.holds(recipe(("prune", {}), recovery))
    assert not s.holds(recipe(("a-static", {"scheme": "u8u8"})))
    assert not s.holds(recipe(("unknown", {})))
    assert not s.holds(Recipe())


def test_conditional_parameters_are_proposed_only_beside_their_values() -> None:
    pattern = Choice(name="pattern", help="", choices=("free", "2:4"))
    ratio = Number(name="ratio", help="", low=0.1, high=0.3, step=0.1, default=0.2, cheaper="high", only_if=("pattern", "free"))
    sparse = method(TorchMethod, "sparse", "cut", parameters=(pattern, ratio))
    s = SearchSpace(
        [OfferReply(method="sparse", version=1, family="cut", parameters=(pattern, ratio), refused=None)], {"sparse": sparse}
    )
    assert s.size() == 4, "three ratios of the free pattern, and 2:4"
    generator, found = np.random.default_rng(0), set()
    for seed in range(20):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        for recipe in (s.random(generator), s.suggest(study.ask())):
            assert s.holds(recipe) or not recipe.steps
            found |= {str(step.parameters) for step in recipe.steps}
            assert all(("ratio" in step.parameters) == (step.parameters["pattern"] == "free") for step in recipe.steps)
            assert s.suggest(optuna.trial.FixedTrial(s.parameters(recipe))) == recipe
    assert len(found) == 4
    inert = Recipe(steps=(Step(method="sparse", version=1, parameters={"pattern": "2:4", "ratio": 0.2}),))
    assert not s.holds(inert) and s.fitted(inert) is None
    assert s.describe() == ["cut: sparse (pattern free or 2:4, ratio 0.1 to 0.3 by 0.1 where pattern is free)"]
