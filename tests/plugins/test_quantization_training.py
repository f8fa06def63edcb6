"""Quantization-aware training: integers simulated, batch norms out of the way, and nothing of both left in the end."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orchestrator.plugin import Refused
from orchestrator.plugin.networks import BATCH_NORMS, same
from orchestrator.plugin.networks import run as outputs
from orchestrator.plugin.parameters import checked
from orchestrator_quantization.batch_norm import FrozenNorm, fold, frozen
from orchestrator_quantization.fake_quantization import FakeInput, FakeWeight, fake_quantizers
from orchestrator_quantization.qat_int8 import QatInt8

QAT = QatInt8()


def forward(model: nn.Module, inputs: Any) -> Any:
    return model(next(iter(inputs.values())))


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, BATCH_NORMS) for m in model.modules())


@pytest.mark.parametrize(("largest", "steps"), [(127, 255), (64, 129)])
def test_fake_weights_have_as_many_steps_as_integers_and_pass_gradients(largest: int, steps: int) -> None:
    weight = torch.randn(4, 5000, requires_grad=True)
    fake = FakeWeight(largest)(weight)
    assert all(len(row.unique()) <= steps for row in fake)
    assert (fake.abs().amax(1) - weight.abs().amax(1)).abs().max() < 1e-5
    fake.sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize("symmetric", [False, True])
def test_fake_inputs_follow_their_range_while_training_only(symmetric: bool) -> None:
    fake = FakeInput(symmetric=symmetric)
    x = torch.linspace(-1, 3, 1001)
    assert torch.equal(fake.eval()(x), x), "a range that was never seen rounds nothing"
    step = (3 / 127) if symmetric else (4 / 255)
    assert (fake.train()(x) - x).abs().max() <= step / 2 + 1e-6
    fake.eval()(100 * x)
    assert float(fake.high) == 3 and float(fake.low) == -1
    fake.train()(100 * x)
    assert 3 < float(fake.high) < 10


def test_fake_inputs_cut_gradients_outside_their_range() -> None:
    fake = FakeInput(symmetric=False)
    fake.train()(torch.tensor([0.0, 1.0]))
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    fake.eval()(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 0]


def test_fake_inputs_keep_sixteen_bits_of_autocast() -> None:
    fake = FakeInput(symmetric=False).train()
    assert fake(torch.randn(8).bfloat16()).dtype == torch.bfloat16


def test_fake_quantizers_are_gone_and_leave_the_weights(make_case: Any) -> None:
    case = make_case("residual-cnn")
    model, before = case.copy(), case.model.state_dict()
    with fake_quantizers(model, largest=127, symmetric=False):
        assert sum(isinstance(m, FakeInput) for m in model.modules()) == 11
        assert not torch.equal(model.stem.weight, before["stem.weight"])
    assert not any(isinstance(m, FakeInput | FakeWeight) for m in model.modules())
    assert not any(parametrize.is_parametrized(m) or m._forward_pre_hooks for m in model.modules())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_masks_of_pruning_outlive_the_fake_quantizers() -> None:
    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight > 0)

    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", Mask())
    with fake_quantizers(layer, largest=127, symmetric=False):
        pass
    assert (layer.weight >= 0).all() and parametrize.is_parametrized(layer)


@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn"])
def test_folding_takes_batch_norms_away_and_keeps_the_outputs(network: str, make_case: Any) -> None:
    case = make_case(network)
    model = case.copy()
    count = norms(model)
    assert fold(model, forward, case.batch()) == count > 0
    assert norms(model) == 0 and same(outputs(case.model, forward, case.batch(9)), outputs(model, forward, case.batch(9)))


def test_batch_norm_whose_layer_others_read_is_not_folded_but_frozen() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.norm.running_mean += 1

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y + self.norm(y)

    torch.manual_seed(0)
    model, inputs = Shared().eval(), {"x": torch.randn(2, 3, 4, 4)}
    expected, norm = outputs(model, forward, inputs), model.norm
    assert fold(model, forward, inputs) == 0 and same(expected, outputs(model, forward, inputs))
    with frozen(model):
        assert isinstance(model.norm, FrozenNorm) and norms(model) == 0
        assert same(expected, outputs(model.train(), forward, inputs))
        with torch.no_grad():
            model.norm.weight.fill_(2.0)
    assert model.norm is norm and float(norm.weight.detach()[0]) == 2 and float(norm.running_mean[0]) == 1


@pytest.mark.parametrize(("scheme", "form"), [("u8s8", "qdq"), ("s8s8", "qdq"), ("u8s8", "qoperator")])
def test_training_ends_in_integers(scheme: str, form: str, make_case: Any, run: Any, tmp_path: Path) -> None:
    case, trained = make_case("residual-cnn"), []

    def train(model: nn.Module, **wishes: Any) -> None:
        trained.append(sum(isinstance(m, FakeInput) for m in model.modules()))
        case.train(model, **wishes)
        assert not norms(model)

    values = checked(QAT.name, QAT.parameters, {"scheme": scheme, "form": form, "epochs": 2})
    made = QAT.transform(case.copy(), values, case.context(tmp_path / "work", train=train))
    assert trained == [11]
    operators = {node.op_type for node in onnx.load(str(made)).graph.node}
    assert ("DequantizeLinear" if form == "qdq" else "QLinearConv") in operators
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["qat-int8.onnx"], "scratch files were left"
    expected = case.outputs(case.model, 16)
    got = torch.from_numpy(run(made, {"image": case.inputs["image"][:16]})[0])
    assert float(nn.functional.cosine_similarity(expected, got).mean()) > 0.98


def test_weights_that_were_pruned_stay_zero_while_training(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    model = case.copy()
    with torch.no_grad():
        model.hidden.weight[:, ::2] = 0
    seen = []

    def export(network: nn.Module) -> Path:
        seen.append(network.hidden.weight.detach().clone())
        return case.export(tmp_path / "work", network)

    values = checked(QAT.name, QAT.parameters, {"epochs": 3})
    QAT.transform(model, values, case.context(tmp_path / "work", export=export))
    assert not seen[0][:, ::2].any() and (seen[0][:, 1::2] != case.model.hidden.weight[:, 1::2]).any()


def test_epochs_are_what_the_budget_pays_for(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    offered = QAT.offer(case.model, QAT.parameters, case.context(tmp_path, epochs=(0.5, 4.5)))
    (epochs,) = [p for p in offered if p.name == "epochs"]
    assert (epochs.low, epochs.high, epochs.step, epochs.start) == (0.5, 4.5, 2.0, 4.5)
    with pytest.raises(Refused, match="affords no training"):
        QAT.offer(case.model, QAT.parameters, case.context(tmp_path, epochs=(0.0, 0.0)))


def test_networks_that_would_stay_in_float_are_refused(make_case: Any, target: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the others would stay in float"):
        QAT.offer(make_case("lstm").model, QAT.parameters, make_case("lstm").context(tmp_path))
    with pytest.raises(Refused, match="lists no int8"):
        QAT.legal(target(formats=("float32",)))
