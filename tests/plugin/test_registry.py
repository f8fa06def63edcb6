"""One door for all plugins."""

import types
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import PluginError
from orchestrator.plugin import Choice, Number, OnnxMethod, ParameterError, hookimpl, hookspecs, narrowed
from orchestrator.plugin.parameters import checked
from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import sample_candidate
from orchestrator.plugin.testing import target as make_target
from orchestrator.values.recipe import Recipe

BUILT_IN = {
    "methods": {
        *("activation-replacement", "block-removal", "evolution", "expansion-ratio", "kernel-shrink", "low-rank"),
        *("net2deeper", "net2wider", "resolution", "separable-convolution", "student", "width-multiplier"),
        *("channel-pruning", "group-pruning", "head-pruning", "network-slimming", "sparsity"),
        "distillation",
        "graph-rewriting",
        "on-onnxruntime",
        *("dynamic-int8", "float16", "qat-int8", "static-int8", "weight-only", "weight-sharing"),
    },
    "runtimes": {"onnxruntime"},
    "metrics": {"accuracy", "agreement", "fidelity", "mse"},
    "tasks": {"digits"},
    "profile_files": {
        "jetson-orin-nano",
        "nvidia-t4",
        "raspberry-pi-3b-plus",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2-w",
        "rk3588",
        "ryzen-7-7840u",
        "snapdragon-8-gen-2",
        "snapdragon-855-plus",
    },
    "search_files": {"int8-only", "no-training", "quick", "thorough"},
    "samplers": {"ehvi", "gp", "nsga2", "nsga3", "random", "tpe"},
}


class Nothing(OnnxMethod):
    name = "nothing"
    version = 1
    family = "nothing"
    summary = "changes nothing"

    def transform(self, model: Any, parameters: Any, context: Any) -> Any:
        return model


def plugin(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("a_plugin")
    for name, function in functions.items():
        setattr(module, name, hookimpl(function))
    return module


@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_built_ins_enter_by_entry_points(kind: str) -> None:
    assert set(getattr(Registry.discover(), kind)()) == BUILT_IN[kind]


def test_method_is_found_when_a_plugin_brings_one() -> None:
    registry = Registry.discover()
    registry.register(plugin(orchestrator_methods=lambda: [Nothing()]), "mine")
    assert registry.methods()["nothing"].family == "nothing"
    assert registry.brought()["mine"] == {"methods": ["nothing"]}


def test_two_methods_of_one_name_are_an_error_that_names_both_plugins() -> None:
    registry = Registry.discover()
    registry.register(plugin(orchestrator_methods=lambda: [Nothing()]), "one")
    registry.register(plugin(orchestrator_methods=lambda: [Nothing()]), "two")
    assert [p.name for p in registry.failed] == ["two"]
    registry.settle("methods", "static-int8")
    with pytest.raises(PluginError, match=r"'one' and 'two' both bring the method 'nothing'"):
        registry.settle("methods", "nothing")


def test_misspelt_hook_is_refused_and_the_plugin_is_not_left_registered() -> None:
    registry = Registry.discover()
    with pytest.raises(Exception, match="orchestrator_metods"):
        registry.register(plugin(orchestrator_metods=nothing), "typo")
    registry.register(plugin(orchestrator_methods=lambda: [Nothing()]), "typo")
    assert "nothing" in registry.methods()


def test_hook_with_an_unknown_argument_is_refused() -> None:
    registry = Registry.discover()
    with pytest.raises(Exception, match="task"):
        registry.register(plugin(orchestrator_methods=lambda task: []), "greedy")
    assert "greedy" not in registry.brought()


def test_plugin_that_raises_in_a_hook_is_marked_and_the_others_answer() -> None:
    registry = Registry.discover()

    def boom() -> list[Any]:
        raise RuntimeError("no")

    registry.register(plugin(orchestrator_methods=boom), "boom")
    assert "static-int8" in registry.methods()
    assert [(p.name, p.error) for p in registry.failed] == [("boom", "orchestrator_methods raised RuntimeError: no")]


def test_first_answer_wins_where_a_model_is_asked_for() -> None:
    registry = Registry.discover()
    registry.register(plugin(orchestrator_load_model=lambda source: f"early {source}"), "early")
    registry.register(plugin(orchestrator_load_model=lambda source: None), "silent")
    registry.register(plugin(orchestrator_load_model=lambda source: f"late {source}"), "late")
    assert registry.load_model("x") == "late x"


def nothing() -> list[Any]:
    return []


def test_every_hook_is_documented_and_typed() -> None:
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("orchestrator_")}
    assert len(hooks) == 16, sorted(hooks)
    for name, hook in hooks.items():
        assert hook.__doc__, name
        assert "return" in hook.__annotations__, name


NUMBER = Number(name="ratio", help="", low=0.1, high=0.7, step=0.2, default=0.3, bounds=(0.0, 0.9))
CHOICE = Choice(name="scheme", help="", choices=("u8s8", "s8s8"))
WHOLE = Number(name="blocks", help="", low=1, high=4, step=1, default=1, integer=True)


def test_parameters_take_their_defaults_when_not_given() -> None:
    assert checked("m", (NUMBER, CHOICE, WHOLE), {"ratio": 0.5}) == {"ratio": 0.5, "scheme": "u8s8", "blocks": 1}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"ratio": 1.5}, "m: `ratio` must be a number with 0.0 <= value <= 0.9, but got 1.5"),
        ({"ratio": True}, "`ratio` must be a number"),
        ({"ratio": float("nan")}, "`ratio` must be a number"),
        ({"scheme": "s4"}, "`scheme` must be one of ['u8s8', 's8s8'], but got 's4'"),
        ({"blocks": 1.5}, "`blocks` must be a whole number with 1 <= value <= 4, but got 1.5"),
        ({"rato": 0.3}, "m: unknown parameter 'rato'; did you mean ratio?"),
    ],
)
def test_parameters_are_refused_with_the_law_and_the_value(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ParameterError) as error:
        checked("m", (NUMBER, CHOICE, WHOLE), values)
    assert line in str(error.value)


CONDITIONAL = Number(name="share", help="", low=0.1, high=0.5, step=0.1, default=0.2, only_if=("scheme", "s8s8"))


def test_conditional_parameter_exists_only_beside_its_value() -> None:
    declared = (CHOICE, CONDITIONAL)
    assert checked("m", declared, {}) == {"scheme": "u8s8"}
    assert checked("m", declared, {"scheme": "s8s8"}) == {"scheme": "s8s8", "share": 0.2}
    with pytest.raises(ParameterError) as error:
        checked("m", declared, {"share": 0.2})
    assert str(error.value) == "m: `share` exists only where `scheme` is s8s8, but `scheme` is u8s8; leave `share` out"


def test_search_range_is_narrowed_and_counted() -> None:
    (ratio,) = narrowed((NUMBER,), ratio={"high": 0.3})
    assert (NUMBER.count(), ratio.count(), CHOICE.count(), WHOLE.count()) == (4, 2, 2, 4)
    with pytest.raises(ParameterError, match="unknown parameter"):
        narrowed((NUMBER,), ration={"high": 0.3})


@pytest.mark.parametrize("answer", [True, "too big", [1]])
def test_check_that_answers_with_a_wrong_type_counts_as_silent_with_a_note(answer: Any) -> None:
    registry = Registry()
    registry.register(plugin(orchestrator_check_recipe=lambda recipe: answer), "wrong")
    registry.register(plugin(orchestrator_check_recipe=lambda recipe: ["not here"]), "right")
    recipe, target = Recipe(steps=()), make_target()
    assert registry.recipe_objections(recipe, target) == registry.recipe_objections(recipe, target) == ["not here"]
    (note,) = registry.notes
    assert note.startswith("plugin 'wrong' was ignored: orchestrator_check_recipe must return a list of sentences, but got ")
    assert registry.failed == (), "its other contributions take part"


class Panic(BaseException):
    """What Rust libraries and cancelled coroutines raise: no Exception."""


def test_what_is_no_exception_stops_nothing_either() -> None:
    registry = Registry()

    def panics(**arguments: Any) -> Any:
        raise Panic("in the library")

    registry.register(plugin(orchestrator_methods=lambda: panics()), "asked")
    registry.register(plugin(orchestrator_check_recipe=lambda recipe: panics()), "checks")
    registry.register(plugin(orchestrator_trial_finished=lambda trial: panics()), "follows")
    assert [(p.name, p.error) for p in registry.failed] == [("asked", "orchestrator_methods raised Panic: in the library")]
    assert registry.recipe_objections(Recipe(steps=()), make_target()) == []
    registry.trial_finished(sample_candidate("c0ffee", 0.9, 1.5, 100))
    assert len(registry.notes) == 2


def test_plugin_whose_contribution_raises_when_it_is_looked_at_leaves_none_of_its_hooks() -> None:
    class Odd(Nothing):
        @property
        def version(self) -> int:  # type: ignore[override]
            raise ValueError("no version today")

    told: list[Any] = []
    registry = Registry()
    registry.register(
        plugin(orchestrator_methods=lambda: [Odd()], orchestrator_trial_finished=lambda trial: told.append(1)), "odd"
    )
    assert [p.error for p in registry.failed] == ["ValueError: no version today"]
    registry.trial_finished(sample_candidate("c0ffee", 0.9, 1.5, 100))
    assert told == []


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"after": ["quantization"]}, "nothing must declare `after`, a frozenset of str, but has ['quantization']"),
        ({"needs": "labels"}, "nothing must declare `needs`, a frozenset of str"),
        ({"parameters": (CONDITIONAL, CHOICE)}, "nothing: `share`: only_if must be the name of a parameter declared before it"),
        (
            {"parameters": (CHOICE, replace(CONDITIONAL, only_if=("scheme", "s4")))},
            "nothing: `scheme` must be one of ['u8s8', 's8s8'], but got 's4'",
        ),
        ({"name": "on-the-fly"}, "on-the-fly: names that begin with 'on-' are steps that choose a runtime"),
        (
            {"after": frozenset({"quantization"}), "before": frozenset({"pruning"})},
            "the methods' declarations of order contradict each other: ",
        ),
    ],
)
def test_method_with_a_declaration_that_no_space_could_be_made_of_is_left_out(declared: dict[str, Any], reason: str) -> None:
    registry = Registry.discover()
    method = type("Declared", (Nothing,), declared)()
    registry.register(plugin(orchestrator_methods=lambda: [method]), "mine")
    (failed,) = registry.failed
    assert failed.name == "mine" and reason in str(failed.error)
    assert "nothing" not in registry.methods()


def test_followers_are_given_copies() -> None:
    registry = Registry()
    seen: list[int] = []

    def careless(trial: Any) -> None:
        trial.recipe.clear()
        trial.latency.clear()

    registry.register(plugin(orchestrator_trial_finished=careless), "careless")
    registry.register(plugin(orchestrator_trial_finished=lambda trial: seen.append(len(trial.recipe))), "after")
    candidate = sample_candidate("c0ffee", 0.9, 1.5, 100)
    registry.trial_finished(candidate)
    assert len(candidate.recipe) == 1 and candidate.latency and seen == [1]


def test_earlier_runs_may_have_been_without_a_plugin_that_is_gone() -> None:
    with pytest.raises(PluginError, match="unknown plugin 'gone'"):
        Registry.discover(without=["gone"])
    assert "static-int8" in Registry.discover(without=["gone"], strict=False).methods()
