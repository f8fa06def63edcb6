"""Sparse weights: how many, which, and that they stay zero."""

import copy
import pickle
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from orchestrator.building.export import export_onnx
from orchestrator.plugin import MethodError, Refused
from orchestrator.plugin.losses import TeacherLoss
from orchestrator.plugin.masks import kept_zeros
from orchestrator.plugin.parameters import checked
from orchestrator_pruning.magnitude import largest, largest_of, weights
from orchestrator_pruning.sparsity import Sparsity

METHOD = Sparsity()


def values(**given: Any) -> dict[str, Any]:
    return checked(METHOD.name, METHOD.parameters, given)


def zeros(model: nn.Module) -> dict[str, int]:
    """Return the number of zeros in each weight whose zeros are kept."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: int((parameter == 0).sum()) for parameter, _ in kept_zeros(model)}


def test_least_magnitudes_of_each_layer_become_zero(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    sparse = METHOD.transform(case.copy(), values(ratio=0.75), case.context(tmp_path))
    assert zeros(sparse) == {
        "features.0.weight": 324,
        "features.4.weight": 2592,
        "hidden.weight": 2304,
        "head.weight": 120,
    }
    before, after = case.model.hidden.weight.detach(), sparse.hidden.weight.detach()
    assert float(before[after == 0].abs().max()) <= float(before[after != 0].abs().min())
    assert torch.equal(after[after != 0], before[after != 0])


def test_of_equal_weights_the_first_stay() -> None:
    assert largest(torch.ones(6), 0.5).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(("pattern", "stay", "block"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_blocks_of_input_channels_keep_their_largest(pattern: str, stay: int, block: int, make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    sparse = METHOD.transform(case.copy(), values(pattern=pattern), case.context(tmp_path))
    assert "features.0.weight" not in zeros(sparse), "three input channels are no block"
    for layer in (sparse.features[4], sparse.hidden):
        blocks = layer.weight.movedim(1, -1).reshape(-1, block)
        assert bool(((blocks != 0).sum(1) == stay).all())


def test_golden_block() -> None:
    weight = torch.tensor([[1.0, -4, 2, 3, 0, 0, 5, -6]])
    assert largest_of(weight, 2, 4).int().tolist() == [[0, 1, 0, 1, 0, 0, 1, 1]]


def test_zeros_survive_copies_training_and_export(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    context = case.context(tmp_path)
    sparse = METHOD.transform(case.copy(), values(ratio=0.6), context)
    sparse = pickle.loads(pickle.dumps(copy.deepcopy(sparse)))
    before, expected = zeros(sparse), {p: p.detach().clone() for p, _ in kept_zeros(sparse)}
    context.train(sparse, epochs=2, loss=TeacherLoss.of(context), learning_rate=0.01)
    assert sum(before.values()) > 0.5 * sum(p.numel() for p in expected)
    assert zeros(sparse) == before
    assert any(not torch.equal(p, old) for p, old in expected.items()), "nothing was trained"
    export_onnx(sparse, case.batch(), tmp_path / "model.onnx")
    arrays = [numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "model.onnx")).graph.initializer]
    assert sum(int((a == 0).sum()) for a in arrays if a.ndim > 1) >= sum(before.values())


def test_attention_projections_are_masked_too(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    sparse = METHOD.transform(case.copy(), values(pattern="2:4"), case.context(tmp_path))
    assert zeros(sparse)["encoder.layers.0.self_attn.in_proj_weight"] == 96 * 32 // 2
    assert case.outputs(sparse).shape == (2, 12)


def test_shared_weights_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8))
    model[2].weight = model[0].weight
    assert list(weights(model)) == ["1.weight"]


def test_patterns_that_no_layer_can_take_are_not_offered(make_case: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1))
    context = make_case("plain-cnn").context(tmp_path)
    offered = METHOD.offer(model, METHOD.parameters, context)
    assert offered[0].choices == ("unstructured",)  # type: ignore[attr-defined]
    with pytest.raises(MethodError, match="no layer's weights can take the pattern 2:4"):
        METHOD.transform(model, values(pattern="2:4"), context)


def test_networks_without_products_are_refused(make_case: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no convolution and no linear layer"):
        METHOD.offer(nn.Sequential(nn.ReLU()), METHOD.parameters, make_case("plain-cnn").context(tmp_path))
