"""One door for all plugins."""

import types
from typing import Any

import pytest

from orchestrator.errors import PluginError
from orchestrator.plugin import Choice, Number, OnnxMethod, ParameterError, hookimpl, hookspecs, narrowed
from orchestrator.plugin.parameters import checked
from orchestrator.plugin.registry import Registry

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


def test_search_range_is_narrowed_and_counted() -> None:
    (ratio,) = narrowed((NUMBER,), ratio={"high": 0.3})
    assert (NUMBER.count(), ratio.count(), CHOICE.count(), WHOLE.count()) == (4, 2, 2, 4)
    with pytest.raises(ParameterError, match="unknown parameter"):
        narrowed((NUMBER,), ration={"high": 0.3})
