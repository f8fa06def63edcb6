"""Zeros that a third party's method sets: kept through steps, trainings, copies, pickles, checkpoints and the export."""

import copy
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrize

from orchestrator.building.data import Split
from orchestrator.building.export import export_onnx
from orchestrator.building.training import Checkpoint, train
from orchestrator.plugin import MethodError, TorchMethod
from orchestrator.plugin.masks import keep_zeros, kept_zeros, reset_zeros
from orchestrator.plugin.parameters import checked
from orchestrator.plugin.testing import MethodTests, make_case

PROJECTS = Path(__file__).parents[1] / "projects"


@pytest.fixture
def zeroing(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PROJECTS / "zeroing"))
    import zeroing  # type: ignore[import-not-found]

    yield zeroing
    del sys.modules["zeroing"]


def conformance(method: TorchMethod) -> Any:
    return type("Conformance", (MethodTests,), {"method": method})()


def zeros(model: nn.Module) -> dict[str, int]:
    return {name: int((p == 0).sum()) for name, p in model.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("network", ["plain-cnn", "transformer", "lstm"])
def test_method_that_keeps_its_zeros_passes_the_kit(
    network: str, zeroing: ModuleType, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conformance(zeroing.Threshold()).test_network_is_refused_or_transformed(network, request, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("keeps", "message"), [((), r'declare keeps = frozenset\({"zeros"}\)'), (("zeros",), "although `keeps` declares zeros")]
)
def test_method_that_loses_its_zeros_fails_the_kit(
    keeps: Any, message: str, zeroing: ModuleType, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = type("Loses", (zeroing.Forgetful,), {"keeps": frozenset(keeps)})()
    with pytest.raises(pytest.fail.Exception, match=message) as error:
        conformance(method).test_network_is_refused_or_transformed("plain-cnn", request, tmp_path, monkeypatch)
    assert "one training step later" in str(error.value)


def test_unknown_property_in_keeps_fails_the_kit(zeroing: ModuleType) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"`keeps` names \['signs'\]"):
        conformance(type("Signs", (zeroing.Threshold,), {"keeps": frozenset({"signs"})})()).test_declaration_is_whole()


def test_zeros_survive_copies_pickles_another_step_and_the_export(zeroing: ModuleType, tmp_path: Path) -> None:
    case, method = make_case("plain-cnn"), zeroing.Threshold()
    sparse = method.transform(case.copy(), checked(method.name, method.parameters, {}), case.context(tmp_path))
    expected = zeros(sparse)
    content = io.BytesIO()
    torch.save(copy.deepcopy(sparse), content)
    content.seek(0)
    restored = torch.load(content, weights_only=False)
    with torch.no_grad():
        for parameter in restored.parameters():
            parameter.add_(0.5)  # as a later step's own training loop does
    assert sum(zeros(restored).values()) == 0
    reset_zeros(restored)
    case.train(restored, epochs=3, loss=lambda outputs, *_: outputs.square().mean(), learning_rate=0.01)
    assert zeros(restored) == expected and sum(expected.values()) > 0
    assert not torch.equal(restored.hidden.weight, sparse.hidden.weight)
    export_onnx(restored, case.batch(), tmp_path / "model.onnx")
    arrays = [numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "model.onnx")).graph.initializer]
    assert sum(int((a == 0).sum()) for a in arrays if a.ndim > 1) == sum(expected.values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_that_resumes_from_a_checkpoint_keeps_zeros(optimizer: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 4)).astype(np.float32)
    split = Split(name="train", count=64, inputs={"x": x}, labels=(x[:, 0] > 0).astype(np.int64))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    keep_zeros(model, ["0.weight"])
    network, steps = copy.deepcopy(model), []

    def loss(outputs: Any, inputs: Any, labels: Any) -> Any:
        steps.append(1)
        if len(steps) == 12:
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(outputs, labels)

    wishes: dict[str, Any] = {"epochs": 4, "loss": loss, "learning_rate": 0.05, "seed": 0, "optimizer": optimizer}
    with pytest.raises(KeyboardInterrupt):
        train(network, split, checkpoint=Checkpoint(path=tmp_path / "state.pt"), **wishes)
    resumed = copy.deepcopy(model)
    train(resumed, split, checkpoint=Checkpoint(path=tmp_path / "state.pt"), **wishes)
    assert not resumed[0].weight[:, ::2].any() and resumed[0].weight[:, 1::2].all()
    assert not torch.equal(resumed[0].weight, model[0].weight)
    assert not any(p._backward_hooks for p in resumed.parameters())


def test_weight_whose_shape_changed_keeps_its_present_zeros() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].weight[:2] = 0
    keep_zeros(model)
    model[0].weight = nn.Parameter(model[0].weight[1:].detach().clone())
    assert [mask.sum(1).tolist() for _, mask in kept_zeros(model)] == [[4, 0, 0]]


def test_zeros_are_kept_under_a_parametrization() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[0] = 0
    keep_zeros(layer)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(1.0)  # type: ignore[union-attr, operator]
    reset_zeros(layer)
    assert not layer.weight[0].any() and layer.weight[1:].all()


def test_name_that_is_no_parameter_is_one_line() -> None:
    with pytest.raises(MethodError, match="no parameter 'head.weigth'"):
        keep_zeros(nn.Sequential(nn.Linear(2, 2)), ["head.weigth"])
