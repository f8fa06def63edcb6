"""Recording a network's dataflow, and the inner chains found in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin import MethodError, Refused
from orchestrator.plugin.channel_groups import nearest_width
from orchestrator.plugin.networks import distance, macs
from orchestrator_morphology.chains import InnerChain, importance, inner_chains, select, strongest
from orchestrator_morphology.expansion_ratio import ExpansionRatio
from orchestrator_morphology.layers import replaceable_layers
from orchestrator_morphology.net2deeper import Net2Deeper, identity
from orchestrator_morphology.net2wider import Net2Wider, wider


class InvertedResidual(nn.Module):
    """1x1 - depthwise - 1x1 around which the input goes (Sandler et al. 2018)."""

    def __init__(self, channels: int = 8, inner: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.expand, self.norm = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depthwise, self.prelu = nn.Conv2d(inner, inner, 3, groups=inner), nn.PReLU(inner)
        self.project = nn.Conv2d(inner, channels, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = functional.relu6(self.norm(self.expand(x)))
        y = self.project(self.prelu(self.depthwise(functional.pad(y, (1, 1, 1, 1)))))
        return self.head((x + y).mean((2, 3)))


class Squeezed(InvertedResidual):
    """With squeeze-and-excitation inside (Hu et al. 2018), of convolutions or of linear layers."""

    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.squeeze, self.excite = (nn.Linear(32, 4), nn.Linear(4, 32)) if linear else (nn.Conv2d(32, 4, 1), nn.Conv2d(4, 32, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = self.prelu(self.depthwise(functional.relu6(self.norm(self.expand(x)))))
        means = y.mean((2, 3), keepdim=not self.linear)
        factors = torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))
        y = self.project(y * (factors.view(len(y), -1, 1, 1) if self.linear else factors))
        return self.head(x.mean((2, 3)) + y.mean((2, 3)))


class FeedForward(nn.Module):
    """Linear - GELU - linear with a residual connection; the first also feeds a function in the second network below."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.act, self.out = nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head((sequence + self.out(self.act(self.into(sequence)))).mean(1))


class ReadTwice(FeedForward):
    def forward(self, sequence: Tensor) -> Tensor:
        inner = self.act(self.into(sequence))
        return self.head((sequence + self.out(inner)).mean(1)) + inner.mean()


class WeightRead(FeedForward):
    """Reads a layer's weight behind its back."""

    def forward(self, sequence: Tensor) -> Tensor:
        return super().forward(sequence) * self.into.weight.mean()


class Tied(FeedForward):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(12, 24)
        self.other.weight = self.into.weight

    def forward(self, sequence: Tensor) -> Tensor:
        return super().forward(sequence) + self.other(sequence).mean()


class FixedWidth(FeedForward):
    """Knows its inner width by heart."""

    def forward(self, sequence: Tensor) -> Tensor:
        inner = self.into(sequence)
        if inner.shape[-1] != 24:
            raise ValueError("24")
        return self.head((sequence + self.out(self.act(inner))).mean(1))


def case_of(model: nn.Module, make_case: Any, like: str = "lstm") -> Any:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return replace(make_case(like), model=model.eval())


@pytest.fixture
def inverted(make_case: Any) -> Any:
    torch.manual_seed(0)
    return case_of(InvertedResidual(), make_case, "plain-cnn")


@pytest.fixture
def feed_forward(make_case: Any) -> Any:
    torch.manual_seed(0)
    return case_of(FeedForward(), make_case)


def test_inverted_residual_is_one_chain_with_all_that_follows_its_channels(inverted: Any, tmp_path: Path) -> None:
    outputs = ("expand", "norm", "depthwise", "prelu")
    assert inner_chains(inverted.model, inverted.context(tmp_path)) == [
        InnerChain(channels=32, outputs=outputs, inputs=("project",))
    ]


@pytest.mark.parametrize("linear", [False, True])
def test_squeeze_and_excitation_follows_the_width_of_its_chain(linear: bool, make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = case_of(Squeezed(linear), make_case, "plain-cnn")
    context = case.context(tmp_path)
    gated = [chain for chain in inner_chains(case.model, context) if len(chain.inputs) > 1]
    assert [(set(c.outputs), set(c.inputs)) for c in gated] == [
        ({"expand", "norm", "depthwise", "prelu", "excite"}, {"project", "squeeze"}),
    ]
    changed = ExpansionRatio().transform(case.copy(), {"keep": 0.5}, context)
    assert changed.expand.weight.shape[0] == changed.squeeze.weight.shape[1] == changed.excite.weight.shape[0] == 16
    changed = Net2Wider().transform(case.copy(), {"factor": 1.5}, context)
    assert changed.expand.weight.shape[0] == changed.squeeze.weight.shape[1] == changed.excite.weight.shape[0] == 48
    assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-10


def test_chains_of_plain_networks_and_transformers_are_found(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    assert inner_chains(case.model, case.context(tmp_path)) == [
        InnerChain(channels=16, outputs=("features.0", "features.1"), inputs=("features.4",)),
        InnerChain(channels=24, outputs=("features.4",), inputs=("hidden",)),
        InnerChain(channels=32, outputs=("hidden",), inputs=("head",)),
    ]
    case = make_case("transformer")
    chains = inner_chains(case.model, case.context(tmp_path))
    assert [(c.outputs, c.inputs) for c in chains] == [
        ((f"encoder.layers.{i}.linear1",), (f"encoder.layers.{i}.linear2",)) for i in range(3)
    ]


@pytest.mark.parametrize("network", [ReadTwice, WeightRead, Tied, FixedWidth])
def test_chain_that_something_else_reads_is_none(network: type[FeedForward], make_case: Any, tmp_path: Path) -> None:
    case = case_of(network(), make_case)
    assert inner_chains(case.model, case.context(tmp_path)) == []
    with pytest.raises(Refused, match="no inner chain"):
        ExpansionRatio().offer(case.model, ExpansionRatio.parameters, case.context(tmp_path))


def test_network_that_does_not_run_is_refused_with_its_reason(make_case: Any, tmp_path: Path) -> None:
    class Broken(FeedForward):
        def forward(self, sequence: Tensor) -> Tensor:
            raise RuntimeError("out of order")

    case = case_of(Broken(), make_case)
    with pytest.raises(MethodError, match="cannot be traced: RuntimeError: out of order"):
        inner_chains(case.model, case.context(tmp_path))
    for method in (ExpansionRatio(), Net2Wider(), Net2Deeper()):
        with pytest.raises(MethodError, match="out of order"):
            method.offer(case.model, method.parameters, case.context(tmp_path))


def test_layers_that_are_called_twice_or_share_weights_are_not_replaceable(make_case: Any, tmp_path: Path) -> None:
    class Twice(FeedForward):
        def forward(self, sequence: Tensor) -> Tensor:
            return super().forward(self.out(self.act(self.into(sequence))))

    case = case_of(Twice(), make_case)
    assert list(replaceable_layers(case.model, case.context(tmp_path))) == ["head"]
    case = case_of(Tied(), make_case)
    assert list(replaceable_layers(case.model, case.context(tmp_path))) == ["out", "head"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())


def test_selecting_all_channels_in_another_order_changes_nothing(inverted: Any, tmp_path: Path) -> None:
    (chain,) = inner_chains(inverted.model, inverted.context(tmp_path))
    changed = inverted.copy()
    select(changed, chain, list(reversed(range(32))))
    torch.testing.assert_close(inverted.outputs(changed), inverted.outputs(inverted.model))


def test_channel_without_weight_is_the_least_important(inverted: Any, tmp_path: Path) -> None:
    (chain,) = inner_chains(inverted.model, inverted.context(tmp_path))
    with torch.no_grad():
        inverted.model.project.weight[:, 3] = 0
        inverted.model.norm.weight[5] = 1e-4
    assert importance(inverted.model, chain).argsort()[:2].tolist() == [3, 5]
    assert strongest(inverted.model, chain, 30) == [c for c in range(32) if c not in (3, 5)]


@pytest.mark.parametrize(
    ("channels", "share", "multiple", "kept"),
    [(32, 0.5, 1, 16), (32, 0.5, 8, 16), (32, 0.4, 8, 16), (32, 0.3, 8, 8), (20, 0.9, 16, 20), (8, 0.5, 16, 8), (24, 0.1, 8, 8)],
)
def test_widths_are_multiples_near_the_share(channels: int, share: float, multiple: int, kept: int) -> None:
    assert nearest_width(channels, channels * share, multiple) == kept


def test_wider_reaches_the_factor_in_multiples() -> None:
    assert (wider(16, 1.5, 1), wider(16, 1.25, 16), wider(32, 1.5, 16)) == (24, 32, 48)


def test_expansion_ratio_keeps_the_share_of_inner_channels(inverted: Any, export: Any, run: Any, tmp_path: Path) -> None:
    context = inverted.context(tmp_path)
    changed = ExpansionRatio().transform(inverted.copy(), {"keep": 0.25}, context)
    assert [(m.in_channels, m.out_channels, m.groups) for m in (changed.expand, changed.depthwise, changed.project)] == [
        *((8, 8, 1), (8, 8, 8), (8, 8, 1)),
    ]
    assert changed.norm.num_features == changed.prelu.num_parameters == 8
    before, after = (macs(m, context.forward, context.example) for m in (inverted.model, changed))
    assert [after[n] / before[n] for n in ("stem", "expand", "depthwise", "project")] == [1, 0.25, 0.25, 0.25]
    found = run(export(inverted, changed, tmp_path / "m.onnx"), {"image": inverted.inputs["image"][:7]})[0]
    np.testing.assert_allclose(found, inverted.outputs(changed, 7).numpy(), rtol=1e-3, atol=1e-5)


def test_expansion_ratio_keeps_what_silent_channels_leave(feed_forward: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        feed_forward.model.out.weight[:, ::2] = 0
    changed = ExpansionRatio().transform(feed_forward.copy(), {"keep": 0.5}, feed_forward.context(tmp_path))
    assert changed.into.out_features == changed.out.in_features == 12
    torch.testing.assert_close(feed_forward.outputs(changed), feed_forward.outputs(feed_forward.model))


def test_expansion_ratio_obeys_the_channel_multiple(feed_forward: Any, target: Any, tmp_path: Path) -> None:
    method = ExpansionRatio()
    changed = method.transform(feed_forward.copy(), {"keep": 0.5}, feed_forward.context(tmp_path, target=target(multiple=8)))
    assert changed.into.out_features == 16
    narrow = feed_forward.context(tmp_path, target=target(multiple=32))
    with pytest.raises(Refused, match="wider than the target's multiple of 32"):
        method.offer(feed_forward.model, method.parameters, narrow)
    with pytest.raises(MethodError, match="narrows no chain in multiples of 32"):
        method.transform(feed_forward.copy(), {"keep": 0.5}, narrow)


@pytest.mark.parametrize("network", ["inverted", "feed_forward"])
def test_net2wider_computes_the_same_with_copies_that_differ(network: str, request: Any, tmp_path: Path) -> None:
    case = request.getfixturevalue(network)
    changed = Net2Wider().transform(case.copy(), {"factor": 1.5}, case.context(tmp_path))
    assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-10
    producer, consumer = (changed.expand, changed.project) if network == "inverted" else (changed.into, changed.out)
    width = len(producer.weight) * 2 // 3
    copied = torch.cat([(producer.weight[:width] == row).flatten(1).all(1).nonzero()[0] for row in producer.weight[width:]])
    assert len(set(copied.tolist())) == width // 2  # each is copied once before any is copied twice
    columns = consumer.weight.flatten(2) if consumer.weight.ndim > 2 else consumer.weight
    assert not torch.isclose(columns[:, copied], columns[:, width:]).all(0).any()


def test_net2wider_then_recovering_trains_copies_apart(feed_forward: Any, tmp_path: Path) -> None:
    context = feed_forward.context(tmp_path)
    changed = Net2Wider().transform(feed_forward.copy(), {"factor": 2.0}, context)
    rows = changed.into.weight.detach().clone()
    feed_forward.train(changed, epochs=3, loss=lambda o, i, y: functional.cross_entropy(o, y), learning_rate=1e-2)
    twins = [int((rows[:24] == row).all(1).nonzero()[0]) for row in rows[24:]]
    assert (changed.into.weight[:24][twins] - changed.into.weight[24:]).abs().max() > 1e-6


@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn", "transformer"])
def test_net2deeper_computes_the_same(network: str, make_case: Any, tmp_path: Path) -> None:
    case, method = make_case(network), Net2Deeper()
    context = case.context(tmp_path)
    layers = int(method.offer(case.model, method.parameters, context)[0].high)
    changed = method.transform(case.copy(), {"layers": layers}, context)
    assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-10
    found = [len(macs(m, context.forward, context.example)) for m in (case.model, changed)]
    assert found[1] - found[0] == layers


def test_net2deeper_inserts_the_cheapest_and_never_more_than_there_is_room_for(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    changed = Net2Deeper().transform(case.copy(), {"layers": 1}, case.context(tmp_path))
    assert isinstance(changed.head, nn.Sequential) and isinstance(changed.hidden, nn.Linear)
    with pytest.raises(MethodError, match="takes 3 inserted layers, but got layers=9"):
        Net2Deeper().transform(case.copy(), {"layers": 9}, case.context(tmp_path))


def test_net2deeper_refuses_networks_without_relu(feed_forward: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="reads the output of a ReLU"):
        Net2Deeper().offer(feed_forward.model, Net2Deeper.parameters, feed_forward.context(tmp_path))


@pytest.mark.parametrize("reader", [nn.Conv1d(4, 2, 5), nn.Conv2d(4, 2, (3, 1)), nn.Conv3d(4, 2, 3, stride=2), nn.Linear(4, 2)])
def test_identity_hands_on_what_it_is_given(reader: Any) -> None:
    dimensions = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}.get(type(reader), 0)
    x = torch.randn(2, 4, *[6] * dimensions)
    torch.testing.assert_close(identity(reader)(x), x)
