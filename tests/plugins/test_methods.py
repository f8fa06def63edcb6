"""One template suite over every method and every small network."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import orchestrator_distillation
import orchestrator_morphology
import orchestrator_pruning
import orchestrator_quantization
from orchestrator.plugin import Choice, Method, Number, OnnxMethod, ParameterError, Refused, TorchMethod
from orchestrator.plugin.parameters import checked

PACKAGES = (orchestrator_distillation, orchestrator_morphology, orchestrator_pruning, orchestrator_quantization)
METHODS: dict[str, Method] = {m.name: m for package in PACKAGES for m in package.orchestrator_methods()}
TORCH = [name for name, m in METHODS.items() if isinstance(m, TorchMethod)]
ONNX = [name for name, m in METHODS.items() if isinstance(m, OnnxMethod)]
NETWORKS = ("plain-cnn", "residual-cnn", "transformer", "lstm")

REFUSED = {
    ("block-removal", "plain-cnn"): "no block of this network can be removed",
    ("block-removal", "lstm"): "no block of this network can be removed",
    ("channel-pruning", "lstm"): "no layer can lose channels",
    ("dynamic-int8", "plain-cnn"): "convolutions would become slower",
    ("dynamic-int8", "residual-cnn"): "convolutions would become slower",
    ("static-int8", "lstm"): "the others would stay in float",
}


def names(methods: list[str]) -> list[Any]:
    return [pytest.param(m, n, id=f"{m}-{n}") for m in methods for n in NETWORKS]


@pytest.mark.parametrize("method", METHODS)
def test_parameters_out_of_range_are_refused(method: str) -> None:
    for parameter in METHODS[method].parameters:
        wrong: list[Any] = [float("nan"), "much", None, True]
        if isinstance(parameter, Number):
            low, high = parameter.bounds or (parameter.low, parameter.high)
            wrong += [low - 1, high + 1]
        for value in wrong:
            with pytest.raises(ParameterError, match=f"{method}: `{parameter.name}` must be"):
                checked(method, METHODS[method].parameters, {parameter.name: value})
    with pytest.raises(ParameterError, match="unknown parameter"):
        checked(method, METHODS[method].parameters, {"strength": 1})


@pytest.mark.parametrize("method", METHODS)
def test_declaration_is_whole(method: str) -> None:
    found = METHODS[method]
    assert found.version >= 1 and found.family and "20" in found.summary and found.summary.endswith(".")
    for parameter in found.parameters:
        assert parameter.help and parameter.count() >= 1
        assert parameter.check(parameter.start) == parameter.start


@pytest.mark.parametrize(("method", "network"), names(TORCH))
def test_torch_method_refuses_or_transforms(
    method: str, network: str, make_case: Any, export: Any, run: Any, tmp_path: Path
) -> None:
    case, found = make_case(network), METHODS[method]
    assert isinstance(found, TorchMethod)
    context = case.context(tmp_path)
    before = copy.deepcopy(case.model.state_dict())
    reason = REFUSED.get((method, network))
    if reason:
        with pytest.raises(Refused, match=reason):
            found.offer(case.model, found.legal(context.target), context)
        return
    offered = found.offer(case.model, found.legal(context.target), context)
    assert all(torch.equal(before[k], v) for k, v in case.model.state_dict().items()), "offer changed the original"
    assert all(p.requires_grad for p in case.model.parameters())

    values = checked(method, offered, {})
    changed = [found.transform(case.copy(), values, context) for _ in range(2)]
    states = [model.state_dict() for model in changed]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0]), "the same call made another network"
    assert all(torch.equal(before[k], v) for k, v in case.model.state_dict().items()), "transform changed the original"
    assert any(states[0].get(k) is None or not torch.equal(states[0][k], v) for k, v in before.items()), "nothing changed"

    expected = case.outputs(changed[0], 5)
    assert expected.shape == case.outputs(case.model, 5).shape
    path = export(case, changed[0], tmp_path / "model.onnx")
    found_outputs = run(path, {name: array[:5] for name, array in case.inputs.items()})
    np.testing.assert_allclose(found_outputs[0], expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("method", "network"), names(ONNX))
def test_onnx_method_refuses_or_transforms(
    method: str, network: str, make_case: Any, exported: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    case, found, path = make_case(network), METHODS[method], exported(network)
    assert isinstance(found, OnnxMethod)
    context = case.context(tmp_path / "work")
    original = path.read_bytes()
    reason = REFUSED.get((method, network))
    if reason:
        with pytest.raises(Refused, match=reason):
            found.offer(path, found.legal(context.target), context)
        return
    offered = found.offer(path, found.legal(context.target), context)
    values = checked(method, offered, {})
    made = [found.transform(path, values, case.context(tmp_path / f"work{k}")) for k in range(2)]
    assert made[0].parent == tmp_path / "work0" and made[0].read_bytes() == made[1].read_bytes()
    assert path.read_bytes() == original and not list(here.iterdir())
    assert [p.name for p in made[0].parent.iterdir()] == [made[0].name], "scratch files were left"

    inputs = {name: array[:16] for name, array in case.inputs.items()}
    expected, got = run(path, inputs)[0], run(made[0], inputs)[0]
    assert got.shape == expected.shape
    cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.mean() > 0.98
    types = {t.data_type for t in onnx.load(str(made[0])).graph.initializer}
    assert types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


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
