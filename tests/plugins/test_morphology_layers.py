"""Layers in the place of other layers: smaller kernels, factors, separated convolutions, activations, smaller images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.plugin import MethodError, Refused
from orchestrator.plugin.networks import distance, macs
from orchestrator_morphology import factors
from orchestrator_morphology.activation_replacement import ActivationReplacement
from orchestrator_morphology.kernel_shrink import KernelShrink, crop
from orchestrator_morphology.layers import replaceable_layers
from orchestrator_morphology.low_rank import LowRank
from orchestrator_morphology.resolution import Resolution
from orchestrator_morphology.separable_convolution import SeparableConvolution, approximation_error, separated


class LargeKernels(nn.Module):
    """7 x 7 with a stride, depthwise 5 x 5, dilated 5 x 5, and an even kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.depthwise = nn.Conv2d(8, 8, 5, padding="same", groups=8)
        self.dilated = nn.Conv2d(8, 8, 5, padding=4, dilation=2)
        self.even = nn.Conv2d(8, 8, 4, padding=2)
        self.bare = nn.Conv2d(8, 8, 5)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.depthwise(self.stem(functional.pad(image, (4, 4, 4, 4))))
        return self.head(self.bare(functional.gelu(self.even(self.dilated(x)))).mean((2, 3)))


class Smooth(nn.Module):
    """Smooth activations as a layer, as an attribute and, where asked, as a function in `forward`."""

    def __init__(self, called: bool, branch: bool = False) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 16)
        self.function, self.gate, self.head = functional.gelu, nn.Sigmoid(), nn.Linear(16, 5)
        self.called, self.branch = called, branch

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.function(self.second(self.act(self.first(sequence)))) * self.gate(self.first(sequence))
        if self.branch and x.sum() > 1e9:
            return self.head(x.mean(1))
        return self.head((functional.mish(x) if self.called else x).mean(1))


def case_of(model: nn.Module, make_case: Any, like: str = "plain-cnn") -> Any:
    return replace(make_case(like), model=model.eval())


@pytest.fixture
def large(make_case: Any) -> Any:
    torch.manual_seed(0)
    return case_of(LargeKernels(), make_case)


def test_kernel_shrink_crops_what_it_can_and_keeps_shapes(large: Any, export: Any, run: Any, tmp_path: Path) -> None:
    context, method = large.context(tmp_path), KernelShrink()
    (size,) = method.offer(large.model, method.parameters, context)
    assert size.choices == (3, 5)
    changed = method.transform(large.copy(), {"size": 3}, context)
    names = ("stem", "depthwise", "dilated", "even", "bare")
    assert [getattr(changed, n).kernel_size[0] for n in names] == [3, 3, 5, 4, 5]
    assert changed.stem.padding == (1, 1)
    torch.testing.assert_close(changed.stem.weight, large.model.stem.weight[:, :, 2:5, 2:5])
    before, after = (macs(m, context.forward, context.example) for m in (large.model, changed))
    assert after["stem"] * 49 == before["stem"] * 9 and after["depthwise"] * 25 == before["depthwise"] * 9
    found = run(export(large, changed, tmp_path / "m.onnx"), {"image": large.inputs["image"][:7]})[0]
    np.testing.assert_allclose(found, large.outputs(changed, 7).numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", [3, "same"])
def test_cropping_a_kernel_that_is_zero_outside_changes_nothing(mode: Any, padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (7, 3), padding=(padding, 1) if padding == 3 else padding, padding_mode=mode)
    with torch.no_grad():
        layer.weight[:, :, [0, 1, 5, 6]] = 0
        x = torch.randn(2, 2, 9, 9)
        before = layer(x)
        crop(layer, 3)
        assert layer.kernel_size == (3, 3)
        torch.testing.assert_close(layer(x), before)


def test_kernel_shrink_offers_only_sizes_below_the_largest_kernel(make_case: Any, tmp_path: Path) -> None:
    case, method = case_of(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.AdaptiveAvgPool2d(1)), make_case), KernelShrink()
    (size,) = method.offer(case.model, method.parameters, case.context(tmp_path))
    assert size.choices == (3,)
    with pytest.raises(MethodError, match="no kernel of this network is larger than size=5"):
        method.transform(case.copy(), {"size": 5}, case.context(tmp_path))


@pytest.mark.parametrize("kind", ["spatial", "channel", "tucker"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 5, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        nn.Conv2d(4, 6, 3, padding="same", bias=False, padding_mode="circular"),
        nn.Conv1d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 1),
        nn.Linear(7, 4),
    ],
)
def test_factors_of_full_rank_compute_the_same(kind: str, layer: Any) -> None:
    values = factors.spectra(layer, kind)
    if not values:
        assert kind == "spatial" and isinstance(layer, nn.Conv1d)
        return
    x = torch.randn(2, 7) if isinstance(layer, nn.Linear) else torch.randn(2, layer.in_channels, *[9] * (layer.weight.ndim - 2))
    with torch.no_grad():
        made = factors.factorised(layer, kind, factors.ranks(values, 1.0))
        torch.testing.assert_close(made(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["spatial", "channel", "tucker"])
def test_cost_of_factors_is_what_they_cost(kind: str, make_case: Any, tmp_path: Path) -> None:
    case = case_of(nn.Sequential(nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 0)), nn.Flatten()), make_case)
    call, layer = replaceable_layers(case.model, case.context(tmp_path))["0"], case.model[0]
    ranks = (2, 3)[: len(factors.spectra(layer, kind))]
    made = nn.Sequential(factors.factorised(layer, kind, ranks))
    counted = macs(made, lambda m, i: m(i["image"]), case.batch())
    assert factors.macs(layer, call, kind, ranks) == sum(counted.values())
    assert factors.macs(layer, call, kind) == sum(macs(case.model, lambda m, i: m(i["image"]), case.batch()).values())


def test_ranks_are_the_least_that_keep_the_energy() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)  # 9 + 4 + 1 = 14
    assert [factors.ranks([values], e)[0] for e in (9 / 14, 0.65, 13 / 14, 0.93, 1.0)] == [1, 2, 2, 3, 3]
    assert factors.ranks([values], 0.65, multiple=4) == (4,)
    assert factors.ranks([values, values], 1 - 2 / 14) == (2, 2)  # each may lose half of 2/14


def test_low_rank_layers_have_these_ranks(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with torch.no_grad():
        case.model.features[4].weight.copy_(torch.einsum("or,rikl->oikl", torch.randn(24, 2), torch.randn(2, 16, 3, 3)))
    context = case.context(tmp_path)
    changed = LowRank().transform(case.copy(), {"kind": "channel", "energy": 0.8}, context)
    widths = {n: m[0].weight.shape[0] for n, m in changed.named_modules() if type(m) is nn.Sequential and n != "features"}
    assert widths == {"features.0": 8, "features.4": 2, "hidden": 19, "head": 4}
    before, after = (macs(m, context.forward, context.example) for m in (case.model, changed))
    assert after["features.4.0"] + after["features.4.1"] == 16 * 2 * (16 * 9 + 24) < before["features.4"]


def test_low_rank_of_all_energy_reproduces_a_network_of_low_rank(make_case: Any, tmp_path: Path) -> None:
    for network, layers in (("plain-cnn", ["features.4", "hidden"]), ("transformer", ["encoder.layers.1.linear1"])):
        case = make_case(network)
        for name in layers:
            weight = case.model.get_submodule(name).weight
            low = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
            with torch.no_grad():
                weight.copy_(((low.U[:, :3] * low.S[:3]) @ low.Vh[:3]).reshape(weight.shape))
        changed = LowRank().transform(case.copy(), {"kind": "channel", "energy": 1 - 1e-9}, case.context(tmp_path))
        assert [type(changed.get_submodule(name)) for name in layers] == [nn.Sequential] * len(layers)
        assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-8


def test_low_rank_ranks_obey_the_channel_multiple(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    changed = LowRank().transform(
        case.copy(), {"kind": "channel", "energy": 0.5}, case.context(tmp_path, target=target(multiple=8))
    )
    widths = [m[0].weight.shape[0] for n, m in changed.named_modules() if type(m) is nn.Sequential and n != "features"]
    assert widths and all(width % 8 == 0 for width in widths)


def test_low_rank_that_saves_nothing_is_an_error(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(MethodError, match="no layer gets cheaper by tucker factors at energy=1.0"):
        LowRank().transform(case.copy(), {"kind": "tucker", "energy": 1.0}, case.context(tmp_path))


@pytest.mark.parametrize("method", [LowRank(), SeparableConvolution()])
def test_layers_whose_weight_the_network_reads_stay(method: Any, make_case: Any, tmp_path: Path) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)
            nn.init.constant_(self.layer.weight, 0.1)

        def forward(self, image: Tensor) -> Tensor:
            return self.layer(image.to(self.layer.weight.dtype)).mean((2, 3)) @ self.head.weight.T

    case = case_of(Asking(), make_case)
    with pytest.raises(Refused, match="no layer of this network gets cheaper|no dense convolution"):
        method.offer(case.model, method.parameters, case.context(tmp_path))


def test_separating_reproduces_a_convolution_of_rank_one_for_each_input() -> None:
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6, 4, 1, 1) * torch.randn(1, 4, 3, 3))
        assert approximation_error(layer) < 1e-9
        x = torch.randn(2, 4, 8, 8)
        torch.testing.assert_close(separated(layer)(x), layer(x), rtol=1e-4, atol=1e-5)


def test_separating_loses_what_is_said() -> None:
    layer = nn.Conv2d(4, 6, 3, bias=False)
    with torch.no_grad():
        depthwise, pointwise = (part.weight for part in separated(layer))
        lost = (layer.weight - pointwise * depthwise.transpose(0, 1)).square().sum() / layer.weight.square().sum()
    assert approximation_error(layer) == pytest.approx(float(lost), rel=1e-4)


def test_separable_convolution_takes_the_share_that_loses_least(make_case: Any, tmp_path: Path) -> None:
    case, method = make_case("plain-cnn"), SeparableConvolution()
    context = case.context(tmp_path)
    with torch.no_grad():
        case.model.features[4].weight.copy_(torch.randn(24, 16, 1, 1) * torch.randn(1, 16, 3, 3))
    changed = method.transform(case.copy(), {"share": 0.5}, context)
    assert isinstance(changed.features[0], nn.Conv2d) and isinstance(changed.features[4], nn.Sequential)
    assert distance([case.outputs(case.model, 8)], [case.outputs(changed, 8)]) < 1e-8
    counts = macs(changed, context.forward, context.example)
    assert (counts["features.4.0"], counts["features.4.1"]) == (16 * 16 * 9, 16 * 16 * 24)
    both = method.transform(case.copy(), {"share": 1.0}, context)
    assert isinstance(both.features[0], nn.Sequential)


@pytest.mark.parametrize("to", ["relu", "hardswish"])
@pytest.mark.parametrize("called", [False, True])
def test_activations_are_replaced_however_they_are_called(called: bool, to: str, make_case: Any, tmp_path: Path) -> None:
    case, method = case_of(Smooth(called), make_case, "lstm"), ActivationReplacement()
    (choice,) = method.offer(case.model, method.parameters, case.context(tmp_path))
    assert choice.choices == ("relu", "hardswish")
    changed = method.transform(case.copy(), {"to": to}, case.context(tmp_path))
    new, old, x = getattr(functional, to), case.model, case.batch()["sequence"]
    with torch.no_grad():
        y = new(old.second(new(old.first(x)))) * torch.sigmoid(old.first(x))
        expected = old.head((new(y) if called else y).mean(1))
    torch.testing.assert_close(case.outputs(changed), expected)
    assert isinstance(changed.gate, nn.Sigmoid) and not changed.training
    assert not torch.equal(case.outputs(case.model), expected)


def test_activation_called_where_fx_cannot_trace_is_refused_with_the_reason(make_case: Any, tmp_path: Path) -> None:
    case = case_of(Smooth(called=True, branch=True), make_case, "lstm")
    with pytest.raises(Refused, match="mish is called as a function in a forward that torch.fx cannot trace .*control flow"):
        ActivationReplacement().offer(case.model, ActivationReplacement.parameters, case.context(tmp_path))


def test_hardswish_is_not_replaced_by_itself(make_case: Any, tmp_path: Path) -> None:
    case, method = case_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()), make_case), ActivationReplacement()
    (to,) = method.offer(case.model, method.parameters, case.context(tmp_path))
    assert to.choices == ("relu",)
    with pytest.raises(MethodError, match="no activation to replace by hardswish"):
        method.transform(case.copy(), {"to": "hardswish"}, case.context(tmp_path))


def test_transformer_layers_do_without_their_fused_kernel(make_case: Any, export: Any, run: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    for layer in case.model.encoder.layers:
        layer.activation, layer.activation_relu_or_gelu = functional.gelu, 2
    changed = ActivationReplacement().transform(case.copy(), {"to": "relu"}, case.context(tmp_path))
    reference = make_case("transformer")
    torch.testing.assert_close(case.outputs(changed), reference.outputs(reference.model))
    found = run(export(case, changed, tmp_path / "m.onnx"), {n: a[:7] for n, a in case.inputs.items()})[0]
    np.testing.assert_allclose(found, case.outputs(changed, 7).numpy(), rtol=1e-3, atol=1e-5)


def test_resolution_shows_the_network_smaller_images(make_case: Any, tmp_path: Path) -> None:
    case, method = make_case("residual-cnn"), Resolution()
    context = case.context(tmp_path)
    changed = method.transform(case.copy(), {"scale": 0.5}, context)
    halved = functional.avg_pool2d(case.batch(5)["image"], 2)
    with torch.no_grad():
        torch.testing.assert_close(case.outputs(changed, 5), case.model(halved))
    before, after = (sum(macs(m, context.forward, context.example).values()) for m in (case.model, changed))
    assert after - 32 * 5 == (before - 32 * 5) / 4  # all but the head


def test_resolution_refuses_networks_of_one_size_and_without_images(make_case: Any, tmp_path: Path) -> None:
    fixed, method = case_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)), make_case), Resolution()
    with pytest.raises(Refused, match="takes no images of scale=.*shapes cannot be multiplied"):
        method.offer(fixed.model, method.parameters, fixed.context(tmp_path))
    dense = case_of(nn.Sequential(nn.Conv2d(3, 4, 3)), make_case)
    with pytest.raises(Refused, match="the outputs change their shape"):
        method.offer(dense.model, method.parameters, dense.context(tmp_path))
    with pytest.raises(Refused, match="no image input"):
        method.offer(make_case("lstm").model, method.parameters, make_case("lstm").context(tmp_path))
