"""One template suite over every method and every small network.

Golden results: what each method makes of each network at its defaults stands in golden.json; where a change is meant, run
`python -m pytest -n0 tests/plugins/test_methods.py --golden` and look at the difference.
"""

import copy
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import orchestrator_distillation
import orchestrator_graph
import orchestrator_morphology
import orchestrator_pruning
import orchestrator_quantization
from orchestrator.plugin import (
    Choice,
    Method,
    Number,
    OnnxMethod,
    ParameterError,
    Recipe,
    Refused,
    Step,
    TorchMethod,
    TorchToOnnxMethod,
)
from orchestrator.plugin.networks import macs
from orchestrator.plugin.parameters import checked

PACKAGES = (
    orchestrator_distillation,
    orchestrator_graph,
    orchestrator_morphology,
    orchestrator_pruning,
    orchestrator_quantization,
)
METHODS: dict[str, Method] = {m.name: m for package in PACKAGES for m in package.orchestrator_methods()}
TORCH = [name for name, m in METHODS.items() if isinstance(m, TorchMethod)]
ONNX = [name for name, m in METHODS.items() if isinstance(m, OnnxMethod)]
EXPORTING = [name for name, m in METHODS.items() if isinstance(m, TorchToOnnxMethod)]
ALL_FORMATS = ("float32", "float16", "int8")
GOLDEN = Path(__file__).with_name("golden.json")
NETWORKS = ("plain-cnn", "residual-cnn", "transformer", "lstm")

NO_CHAIN = "no inner chain"
NO_ATTENTION = "no attention of several heads"
NO_COPIES = "no slice, padding or mean"
FLOAT_STAYS = "the others would stay in float"
HALF = "it pays only where they hold at least half"
REFUSED = {
    ("activation-replacement", "any"): "no activation that ReLU or Hardswish is cheaper than",
    ("block-removal", "plain-cnn"): "no block of this network can be removed",
    ("block-removal", "lstm"): "no block of this network can be removed",
    ("channel-pruning", "lstm"): "no layer can lose channels",
    ("dynamic-int8", "plain-cnn"): "convolutions would become slower",
    ("dynamic-int8", "residual-cnn"): "convolutions would become slower",
    ("evolution", "lstm"): "layers whose cost is not counted",
    ("expansion-ratio", "residual-cnn"): NO_CHAIN,
    ("expansion-ratio", "lstm"): NO_CHAIN,
    ("graph-rewriting", "plain-cnn"): NO_COPIES,
    ("graph-rewriting", "transformer"): NO_COPIES,
    ("graph-rewriting", "lstm"): NO_COPIES,
    ("group-pruning", "lstm"): "no group of layers can lose channels",
    ("head-pruning", "plain-cnn"): NO_ATTENTION,
    ("head-pruning", "residual-cnn"): NO_ATTENTION,
    ("head-pruning", "lstm"): NO_ATTENTION,
    ("kernel-shrink", "any"): "no convolution with a kernel larger than 3",
    ("net2deeper", "lstm"): "reads what a ReLU gave",
    ("net2wider", "residual-cnn"): NO_CHAIN,
    ("net2wider", "lstm"): NO_CHAIN,
    ("network-slimming", "transformer"): "no batch norm lies over channels",
    ("network-slimming", "lstm"): "no batch norm lies over channels",
    ("qat-int8", "lstm"): FLOAT_STAYS,
    ("resolution", "transformer"): "no image input",
    ("resolution", "lstm"): "no image input",
    ("separable-convolution", "transformer"): "no dense convolution",
    ("separable-convolution", "lstm"): "no dense convolution",
    ("static-int8", "lstm"): FLOAT_STAYS,
    ("student", "any"): "no student was named",
    ("weight-only", "plain-cnn"): HALF,
    ("weight-only", "residual-cnn"): HALF,
    ("weight-only", "lstm"): HALF,
    ("width-multiplier", "lstm"): "can be narrowed",
}
"""Why a method takes no part on a network; those that refuse all four are held to their own networks in their own tests."""


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Any:
    """`golden(method, network, facts)` holds facts against those that are kept, or keeps them with --golden."""
    kept = json.loads(GOLDEN.read_text("utf-8"))
    writing = request.config.getoption("--golden")

    def check(method: str, network: str, facts: Any) -> None:
        if writing:
            kept[f"{method} on {network}"] = facts
            GOLDEN.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
        assert kept[f"{method} on {network}"] == facts

    return check


def names(methods: list[str]) -> list[Any]:
    """Every method on every network; what takes seconds each and few people use runs with the slow tests."""
    return [
        pytest.param(m, n, id=f"{m}-{n}", marks=[pytest.mark.slow] if n == "transformer" and not METHODS[m].usual else [])
        for m in methods
        for n in NETWORKS
    ]


@pytest.mark.parametrize("method", METHODS)
def test_parameters_out_of_range_are_refused(method: str) -> None:
    for parameter in METHODS[method].parameters:
        name = parameter.name.replace("*", "layer.1")
        wrong: list[Any] = [float("nan"), "much", None]
        wrong += [] if isinstance(parameter, Choice) and True in parameter.choices else [True]
        if isinstance(parameter, Number):
            low, high = parameter.bounds or (parameter.low, parameter.high)
            wrong += [low - 1, high + 1]
        for value in wrong:
            with pytest.raises(ParameterError, match=f"{method}: `{name}` must be"):
                checked(method, METHODS[method].parameters, {name: value})
    with pytest.raises(ParameterError, match="unknown parameter"):
        checked(method, METHODS[method].parameters, {"strength": 1})


@pytest.mark.parametrize("method", METHODS)
def test_step_survives_its_way_through_json(method: str) -> None:
    values = checked(method, METHODS[method].parameters, {})
    recipe = Recipe(steps=(Step(method=method, version=METHODS[method].version, parameters=values),))
    again = Recipe.from_json(json.loads(json.dumps(recipe.as_json())))
    assert again.digest == recipe.digest and checked(method, METHODS[method].parameters, again.steps[0].parameters) == values


def test_declarations_of_order_are_symmetric() -> None:
    families = {m.family for m in METHODS.values()}
    for one in METHODS.values():
        assert not one.before & one.after and one.family not in one.before | one.after
        assert one.before | one.after | one.requires <= families, "a family that nobody brings"
        assert one.requires <= one.after
        for other in METHODS.values():
            if other.family == one.family:
                assert (one.before, one.after) == (other.before, other.after), f"{one.name} and {other.name} are of one family"
            assert (other.family in one.before) == (one.family in other.after), f"{one.name} and {other.name} disagree"


def test_every_order_is_of_kinds_that_fit() -> None:
    for one in METHODS.values():
        for other in METHODS.values():
            if other.family in one.before and isinstance(other, TorchMethod):
                assert isinstance(one, TorchMethod), f"{other.name} takes a module, but {one.name} gives a file"


@pytest.mark.parametrize("method", METHODS)
def test_declaration_is_whole(method: str) -> None:
    found = METHODS[method]
    assert found.version >= 1 and found.family and "20" in found.summary and found.summary.endswith(".")
    for parameter in found.parameters:
        assert parameter.help and parameter.count() >= 1
        assert parameter.check(parameter.start) == parameter.start


@pytest.mark.parametrize(("method", "network"), names(TORCH))
def test_torch_method_refuses_or_transforms(
    method: str, network: str, make_case: Any, export: Any, run: Any, golden: Any, tmp_path: Path
) -> None:
    case, found = make_case(network), METHODS[method]
    assert isinstance(found, TorchMethod)
    context = case.context(tmp_path)
    before = copy.deepcopy(case.model.state_dict())
    if refused(found, case.model, network, context):
        return
    offered = found.offer(case.model, found.legal(context.target), context)
    assert_untouched(case, before)

    values = checked(method, offered, {})
    changed = [found.transform(case.copy(), values, context) for _ in range(2)]
    states = [model.state_dict() for model in changed]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0]), "the same call made another network"
    assert_untouched(case, before)
    expected = case.outputs(changed[0], 5)
    assert expected.shape == case.outputs(case.model, 5).shape
    same_weights = all(states[0].get(k) is not None and torch.equal(states[0][k], v) for k, v in before.items())
    assert not (same_weights and torch.equal(expected, case.outputs(case.model, 5))), "nothing changed"

    path = export(case, changed[0], tmp_path / "model.onnx")
    found_outputs = run(path, {name: array[:5] for name, array in case.inputs.items()})
    np.testing.assert_allclose(found_outputs[0], expected.numpy(), rtol=1e-3, atol=1e-4)
    counts = macs(changed[0], context.forward, context.example)
    golden(method, network, {"parameters": sum(p.numel() for p in changed[0].parameters()), "macs": sum(counts.values())})


@pytest.mark.parametrize(("method", "network"), names(EXPORTING))
def test_exporting_method_refuses_or_transforms(
    method: str, network: str, make_case: Any, run: Any, golden: Any, tmp_path: Path
) -> None:
    case, found = make_case(network), METHODS[method]
    assert isinstance(found, TorchToOnnxMethod)
    context = case.context(tmp_path / "work")
    before = copy.deepcopy(case.model.state_dict())
    if refused(found, case.model, network, context):
        return
    offered = found.offer(case.model, found.legal(context.target), context)
    values = checked(method, offered, {})
    made = [found.transform(case.copy(), values, case.context(tmp_path / f"work{k}")) for k in range(2)]
    assert_untouched(case, before)
    assert made[0].parent == tmp_path / "work0" and made[0].read_bytes() == made[1].read_bytes()
    assert_alike(case, case.export(tmp_path, case.copy()), made[0], run, least=0.9)
    golden(method, network, facts(made[0]))


@pytest.mark.parametrize(("method", "network"), names(ONNX))
def test_onnx_method_refuses_or_transforms(
    method: str,
    network: str,
    make_case: Any,
    exported: Any,
    run: Any,
    golden: Any,
    target: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    case, found, path = make_case(network), METHODS[method], exported(network)
    assert isinstance(found, OnnxMethod)
    context = case.context(tmp_path / "work", **({"target": target(formats=ALL_FORMATS)} if method == "float16" else {}))
    original = path.read_bytes()
    if refused(found, path, network, context):
        return
    offered = found.offer(path, found.legal(context.target), context)
    values = checked(method, offered, {})
    made = [found.transform(path, values, replace(context, workspace=tmp_path / f"work{k}")) for k in range(2)]
    assert made[0].parent == tmp_path / "work0" and made[0].read_bytes() == made[1].read_bytes()
    assert path.read_bytes() == original and not list(here.iterdir())
    assert [p.name for p in made[0].parent.iterdir()] == [made[0].name], "scratch files were left"
    assert_alike(case, path, made[0], run, least=0.98)
    assert made[0].read_bytes() != original, "nothing changed"
    golden(method, network, facts(made[0]))


def refused(method: Any, model: Any, network: str, context: Any) -> bool:
    """Whether the method is declared to refuse this network; then it does, with that reason."""
    reason = REFUSED.get((method.name, network)) or REFUSED.get((method.name, "any"))
    if reason:
        with pytest.raises(Refused, match=reason):
            method.offer(model, method.legal(context.target), context)
    return reason is not None


def assert_untouched(case: Any, before: Any) -> None:
    now = case.model.state_dict()
    assert now.keys() == before.keys() and all(torch.equal(before[k], v) for k, v in now.items()), "the original was changed"
    assert all(p.requires_grad for p in case.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules()), "a hook was left"


def assert_alike(case: Any, before: Path, after: Path, run: Any, least: float) -> None:
    """Both files answer alike: the mean cosine of their outputs is high enough."""
    inputs = {name: array[:16] for name, array in case.inputs.items()}
    expected, got = run(before, inputs)[0], run(after, inputs)[0]
    assert got.shape == expected.shape
    cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.mean() > least


def facts(path: Path) -> dict[str, Any]:
    """What a file holds, independent of the weights' values: operators, and bytes of constants by type."""
    graph = onnx.load(str(path)).graph
    held: Counter[str] = Counter()
    for tensor in graph.initializer:
        held[onnx.TensorProto.DataType.Name(tensor.data_type)] += len(onnx.numpy_helper.to_array(tensor).tobytes())
    return {"operators": dict(Counter(node.op_type for node in graph.node)), "bytes": dict(held)}


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8", "u8u8"])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn", "transformer"])
def test_every_static_combination_runs(
    network: str, form: str, scheme: str, make_case: Any, exported: Any, run: Any, tmp_path: Path
) -> None:
    case, method = make_case(network), METHODS["static-int8"]
    assert isinstance(method, OnnxMethod)
    for calibration in ("minmax", "percentile", "entropy"):
        values = checked(method.name, method.parameters, {"scheme": scheme, "form": form, "calibration": calibration})
        made = method.transform(exported(network), values, case.context(tmp_path))
        inputs = {name: array[:16] for name, array in case.inputs.items()}
        expected, got = run(exported(network), inputs)[0], run(made, inputs)[0]
        cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
        assert cosine.mean() > 0.95, calibration


def test_all_steps_after_one_another_run(make_case: Any, export: Any, run: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    context = case.context(tmp_path)
    model = case.copy()
    for name in ("block-removal", "channel-pruning", "distillation"):
        method = METHODS[name]
        assert isinstance(method, TorchMethod)
        model = method.transform(model, checked(name, method.parameters, {}), context)
    path = export(case, model, tmp_path / "model.onnx")
    method = METHODS["static-int8"]
    assert isinstance(method, OnnxMethod)
    made = method.transform(path, checked(method.name, method.parameters, {}), context)
    assert run(made, {"image": case.inputs["image"][:3]})[0].shape == (3, 5)


@pytest.mark.parametrize("package", [p.__name__ for p in PACKAGES])
def test_importing_a_package_wakes_no_framework(package: str) -> None:
    code = (
        f"import sys, {package}; {package}.orchestrator_methods(); print({{'torch', 'onnx', 'onnxruntime'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_choices_are_of_one_type() -> None:
    for method in METHODS.values():
        for parameter in method.parameters:
            if isinstance(parameter, Choice):
                assert len({type(c) for c in parameter.choices}) == 1
