"""Channel pruning: what goes, what stays, and by how much."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError, Number, Refused
from orchestrator.plugin.networks import same
from orchestrator.plugin.parameters import checked
from orchestrator_pruning.channel import ChannelPruning
from orchestrator_pruning.coupled import Coupling, Group, differentiable
from orchestrator_pruning.plan import kept
from orchestrator_pruning.surgery import sound_groups

METHOD = ChannelPruning()


def values(**given: Any) -> dict[str, Any]:
    """By magnitude and the same share everywhere, so that what goes can be told by hand."""
    return checked(METHOD.name, METHOD.parameters, {"importance": "l2", "scope": "uniform", **given})


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("network", "ratio", "scope", "expected"),
    [
        ("residual-cnn", 0.0, "uniform", 8869),
        ("residual-cnn", 0.3, "uniform", 5684),
        ("residual-cnn", 0.5, "uniform", 4085),  # 224 stem + 304 first + 1752 widen + 1680 second + 125 head
        ("plain-cnn", 0.0, "uniform", 7229),
        ("plain-cnn", 0.5, "uniform", 1985),  # 224 + 16 + 876 features + 784 hidden + 85 head
        ("plain-cnn", 0.5, "global", 1975),
    ],
)
def test_parameters_left_are_as_recorded(
    network: str, ratio: float, scope: str, expected: int, make_case: Any, tmp_path: Path
) -> None:
    case = make_case(network)
    model = case.copy()
    if ratio:
        model = METHOD.transform(model, values(ratio=ratio, scope=scope), case.context(tmp_path))
    assert count(model) == expected


def test_zero_padded_shortcut_keeps_its_channels_aligned(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    pruned = METHOD.transform(case.copy(), values(ratio=0.5), case.context(tmp_path))
    # 8 of 16 channels go in the first stage and the 8 that the shortcut carries into the second; the padded 16 must stay.
    assert (pruned.stem.out_channels, pruned.widen.out_channels) == (8, 24)
    assert torch.equal(pruned.head.weight[:, :8], case.model.head.weight[:, :8])
    assert torch.equal(pruned.head.weight[:, -8:], case.model.head.weight[:, -8:])


def test_removed_channels_are_those_of_least_magnitude(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with torch.no_grad():
        case.model.hidden.weight[3] = 0
        case.model.head.weight[:, 3] = 0
    pruned = METHOD.transform(case.copy(), values(ratio=0.1), case.context(tmp_path))
    assert pruned.hidden.out_features == 29
    assert not (pruned.hidden.weight == 0).all(1).any()


def test_outputs_do_not_move_when_dead_channels_go(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with torch.no_grad():
        for index in range(0, 32, 2):
            case.model.hidden.weight[index], case.model.hidden.bias[index] = 0, 0
            case.model.head.weight[:, index] = 0
    model = case.copy()
    context = case.context(tmp_path)
    with differentiable(model):
        Coupling(model, context.forward, context.example).prune({"hidden": list(range(0, 32, 2))})
    assert model.hidden.out_features == 16
    torch.testing.assert_close(case.outputs(model, 8), case.outputs(case.model, 8))


def test_channels_are_rounded_to_the_targets_multiple(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context = case.context(tmp_path, target=target(multiple=8))
    pruned = METHOD.transform(case.copy(), values(ratio=0.4), context)
    assert (pruned.features[0].out_channels, pruned.features[4].out_channels, pruned.hidden.out_features) == (8, 16, 16)


@pytest.mark.parametrize(
    ("channels", "wanted", "step", "expected"),
    [
        (16, 1.0, 16, 16),
        (8, 1.0, 16, 8),
        (64, 44.8, 16, 48),
        (64, 1.0, 16, 16),
        (30, 15.0, 1, 15),
        (100, 95.0, 16, 96),
        (24, 22.8, 16, 24),
    ],
)
def test_kept_is_a_multiple_and_never_below_one(channels: int, wanted: float, step: int, expected: int) -> None:
    assert kept(channels, wanted, step) == expected


def test_offer_starts_at_the_first_ratio_that_removes_something(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    offered = METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, target=target(multiple=4)))
    ratio = next(p for p in offered if isinstance(p, Number))
    assert (ratio.low, ratio.start) == (0.15, 0.3)


def test_offer_refuses_when_all_layers_are_narrower_than_the_multiple(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(Refused, match="multiple of 64 channels"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, target=target(multiple=64)))


def test_transform_says_so_when_nothing_would_go(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(MethodError, match=r"removes no channel.*choose a higher ratio"):
        METHOD.transform(case.copy(), values(ratio=0.05), case.context(tmp_path, target=target(multiple=16)))


def test_attention_and_residual_stream_of_a_transformer_stay_whole(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    pruned = METHOD.transform(case.copy(), values(ratio=0.5), case.context(tmp_path))
    for layer in pruned.encoder.layers:
        assert (layer.linear1.out_features, layer.linear2.in_features) == (32, 32)
        assert layer.self_attn.in_proj_weight.shape == (96, 32)


class Heads(nn.Module):
    """Attention written out: nothing but its reshapes tells that channels come in heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        attended = ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return (x + self.down(self.up(x).relu())).mean(1)


def test_heads_written_by_hand_are_found_by_trial(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Heads().eval()
    context = make_case("lstm").context(tmp_path, example={"x": torch.randn(2, 5, 16)})
    assert [group.root for group in sound_groups(model, context)] == ["up"]


class TwoOutputs(nn.Module):
    """A grouped convolution, and two outputs in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2), nn.ReLU())
        self.mask, self.logits = nn.Conv2d(16, 8, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        x = self.body(x)
        return {"mask": self.mask(x), "logits": self.logits(x.mean((2, 3)))}


def test_all_outputs_keep_their_shape_and_grouped_convolutions_their_groups(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoOutputs().eval()
    context = make_case("plain-cnn").context(tmp_path)
    pruned = METHOD.transform(model, values(ratio=0.5), context)
    outputs = pruned(context.example["image"])
    assert outputs["mask"].shape[1] == 8 and outputs["logits"].shape[1] == 5
    assert pruned.body[2].groups == 2 and pruned.body[2].out_channels == 8 and pruned.body[0].out_channels == 8


def test_frozen_parameters_stay_frozen(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    case.model.features.requires_grad_(False)
    pruned = METHOD.transform(case.copy(), values(ratio=0.5), case.context(tmp_path))
    frozen = {name for name, p in pruned.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in pruned.named_parameters() if name.startswith("features")}


def test_network_that_cannot_be_traced_is_refused(make_case: Any, tmp_path: Path) -> None:
    def broken(_: nn.Module, __: Any) -> Any:
        raise RuntimeError("no")

    case = make_case("plain-cnn")
    with pytest.raises(Refused, match="cannot trace this network: RuntimeError: no"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, forward=broken))


def test_parts_lose_the_same_positions() -> None:
    assert Group(root="conv", channels=8, parts=2).expand([0, 3]) == [0, 3, 4, 7]


def test_same_is_strict_about_shape_and_value() -> None:
    assert same([torch.ones(2)], [torch.ones(2) + 1e-5])
    assert not same([torch.ones(2)], [torch.ones(3)])
    assert not same([torch.ones(2)], [torch.ones(2) + 0.1])
