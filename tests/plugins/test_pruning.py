"""Channel pruning: what goes, what stays, and by how much."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError, Number, Refused
from orchestrator.plugin.channel_groups import ChannelGroup, channel_graph, nearest_width, removable_groups
from orchestrator.plugin.networks import macs, same
from orchestrator.plugin.parameters import checked
from orchestrator_pruning.channel import IMPORTANCE, ChannelPruning
from orchestrator_pruning.pruner import cost_of, prune
from orchestrator_pruning.width import WidthMultiplier

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
    with channel_graph(model, context) as graph:
        graph.prune({"hidden": list(range(0, 32, 2))})
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
    assert nearest_width(channels, wanted, step) == expected


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
    assert [group.root for group in removable_groups(model, context)] == ["up"]


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
    with pytest.raises(MethodError, match="cannot be traced: RuntimeError: no"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, forward=broken))


def test_parts_lose_the_same_positions() -> None:
    assert ChannelGroup(root="conv", channels=8, parts=2).expand([0, 3]) == [0, 3, 4, 7]


def test_same_is_strict_about_shape_and_value() -> None:
    assert same([torch.ones(2)], [torch.ones(2) + 1e-5])
    assert not same([torch.ones(2)], [torch.ones(3)])
    assert not same([torch.ones(2)], [torch.ones(2) + 0.1])


def macs_of(model: nn.Module, case: Any) -> int:
    return sum(macs(model, forward, case.batch()).values())


def forward(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(*inputs.values())


@pytest.mark.parametrize(
    ("network", "ratio"), [("plain-cnn", 0.5), ("plain-cnn", 0.25), ("residual-cnn", 0.5), ("transformer", 0.3)]
)
def test_ratio_is_of_the_work_where_sensitivities_decide(network: str, ratio: float, make_case: Any, tmp_path: Path) -> None:
    case = make_case(network)
    pruned = METHOD.transform(case.copy(), values(ratio=ratio, scope="sensitivity"), case.context(tmp_path))
    assert macs_of(pruned, case) / macs_of(case.model, case) == pytest.approx(1 - ratio, abs=0.02)


def test_layer_that_the_output_does_not_depend_on_goes_first(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with torch.no_grad():
        case.model.encoder.layers[1].linear2.weight.zero_()
    pruned = METHOD.transform(case.copy(), values(ratio=0.15, scope="sensitivity", importance="taylor"), case.context(tmp_path))
    assert [layer.linear1.out_features for layer in pruned.encoder.layers] == [64, 36, 64]
    assert same([case.outputs(case.model)], [case.outputs(pruned)])


def test_sensitivities_are_measured_once(make_case: Any, tmp_path: Path) -> None:
    case, kept_tables, asked = make_case("plain-cnn"), {}, []

    def remember(key: str, compute: Any) -> Any:
        asked.append(key)
        if key not in kept_tables:
            kept_tables[key] = compute()
        return kept_tables[key]

    context = case.context(tmp_path, remember=remember)
    for ratio in (0.3, 0.5):
        METHOD.transform(case.copy(), values(ratio=ratio, scope="sensitivity"), context)
    assert len(asked) == 2 and len(kept_tables) == 1
    METHOD.transform(case.copy(), values(scope="sensitivity", importance="l1"), context)
    assert len(kept_tables) == 2, "another order of channels is another table"
    curve = next(iter(kept_tables.values()))["hidden"]
    assert [share for share, _ in curve] == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.9375]
    assert all(first <= second for (_, first), (_, second) in pairwise(curve)) and curve[0][1] == 0


def test_ratio_out_of_reach_is_told(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Heads().eval(), {"x": torch.randn(16, 5, 16)}
    context = make_case("lstm").context(tmp_path, example=inputs, samples=lambda *_: iter([(inputs, None)]))
    with pytest.raises(MethodError, match=r"ratio <= 0\.43 must hold, .*but got ratio=0\.5"):
        METHOD.transform(copy.deepcopy(model), values(ratio=0.5, scope="sensitivity"), context)
    METHOD.transform(copy.deepcopy(model), values(ratio=0.43, scope="sensitivity"), context)


def test_search_asks_for_no_ratio_out_of_reach(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Stream().eval()
    model.up[1] = nn.Conv2d(8, 16, 1)
    model.stem = nn.Conv2d(3, 8, 9, padding=4)
    found = {p.name: p for p in METHOD.offer(model, METHOD.parameters, make_case("plain-cnn").context(tmp_path))}
    assert isinstance(found["ratio"], Number) and (found["ratio"].low, found["ratio"].high) == (0.1, 0.55)


def test_golden_channels(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    pruned = METHOD.transform(case.copy(), values(ratio=0.5), case.context(tmp_path))
    weight = case.model.features[0].weight
    left = [k for k in range(16) if any(torch.equal(weight[k], row) for row in pruned.features[0].weight)]
    assert left == [1, 2, 3, 8, 9, 12, 13, 14]


class Stream(nn.Module):
    """A residual stream, and inner channels that lead nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.up, self.down = (nn.ModuleList(nn.Conv2d(*size, 3, padding=1) for _ in range(2)) for size in ((8, 16), (16, 8)))
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).relu()
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(nn.functional.relu6(up(x) + 3))  # adding a number makes no stream of it
        return self.head(x.mean((2, 3)))


def test_streams_stay_whole_where_only_inner_channels_go(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, context = Stream().eval(), make_case("plain-cnn").context(tmp_path)
    assert {g.root: g.inner for g in removable_groups(model, context)} == {"stem": False, "up.0": True, "up.1": True}
    offered = {p.name: p for p in METHOD.offer(model, METHOD.parameters, context)}
    assert offered["layers"].choices == ("all", "inner")  # type: ignore[attr-defined]
    pruned = METHOD.transform(copy.deepcopy(model), values(ratio=0.5, layers="inner"), context)
    assert (pruned.stem.out_channels, pruned.up[0].out_channels, pruned.up[1].out_channels) == (8, 8, 8)


def test_neurons_of_linear_layers_are_channels_too(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 5)).eval()
    pruned = METHOD.transform(model, values(ratio=0.5), make_case("plain-cnn").context(tmp_path))
    assert [tuple(layer.weight.shape) for layer in pruned if isinstance(layer, nn.Linear)] == [(16, 192), (8, 16), (5, 8)]


@pytest.mark.parametrize("scope", ["uniform", "global", "sensitivity"])
def test_rounds_end_at_the_same_ratio_and_train_in_between(scope: str, make_case: Any, tmp_path: Path) -> None:
    case, trained = make_case("plain-cnn"), []

    def train(model: nn.Module, *, epochs: float, loss: Any, **other: Any) -> None:
        trained.append((count(model), epochs))
        assert all(p.requires_grad for p in model.parameters())
        case.train(model, epochs=epochs, loss=loss, **other)

    context = case.context(tmp_path, train=train)
    once = METHOD.transform(case.copy(), values(ratio=0.5, scope=scope), context)
    assert not trained
    thrice = METHOD.transform(case.copy(), values(ratio=0.5, scope=scope, rounds=3, round_epochs=0.5), context)
    assert [tuple(p.shape) for p in thrice.parameters()] == [tuple(p.shape) for p in once.parameters()]
    sizes = [size for size, _ in trained]
    assert count(case.model) > sizes[0] > sizes[1] > count(thrice) and {epochs for _, epochs in trained} == {0.5}


def test_assistant_of_a_round_is_the_network_before_it(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    teachers: dict[str, list[int]] = {"original": [], "previous": []}
    for who, sizes in teachers.items():

        def train(model: nn.Module, *, loss: Any, sizes: list[int] = sizes, **other: Any) -> None:
            sizes.append(count(loss._teacher))
            case.train(model, loss=loss, **other)

        METHOD.transform(case.copy(), values(ratio=0.5, rounds=3, round_teacher=who), case.context(tmp_path, train=train))
    assert teachers["original"] == [count(case.model)] * 2
    assert teachers["previous"][0] == count(case.model) > teachers["previous"][1], "then one that is closer in size"


@pytest.mark.parametrize(("network", "share"), [("plain-cnn", 0.5), ("residual-cnn", 0.5), ("transformer", 0.5)])
def test_width_multiplier_narrows_every_layer_alike(network: str, share: float, make_case: Any, tmp_path: Path) -> None:
    case, method = make_case(network), WidthMultiplier()
    context = case.context(tmp_path)
    assert method.offer(case.model, method.parameters, context) == method.parameters
    narrow = method.transform(case.copy(), checked(method.name, method.parameters, {"multiplier": share}), context)
    for group in removable_groups(case.model, context):
        assert narrow.get_submodule(group.root).weight.shape[0] == share * case.model.get_submodule(group.root).weight.shape[0]
    assert case.outputs(narrow).shape == case.outputs(case.model).shape


def test_width_multiplier_refuses_what_has_no_width(make_case: Any, target: Any, tmp_path: Path) -> None:
    case, method = make_case("plain-cnn"), WidthMultiplier()
    with pytest.raises(Refused, match="no layer of this network can be narrowed to 0.5"):
        method.offer(case.model, method.parameters, case.context(tmp_path, target=target(multiple=32)))
    with pytest.raises(MethodError, match="choose a lower multiplier"):
        values_ = checked(method.name, method.parameters, {"multiplier": 0.99})
        method.transform(case.copy(), values_, case.context(tmp_path, target=target(multiple=8)))


def test_rounds_are_offered_only_where_something_can_train(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context = case.context(tmp_path)
    found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, context)}
    assert (found["rounds"].count(), found["round_epochs"].start) == (3, 1.25)
    without = replace(context, task=replace(context.task, examples={"validation": 64}, labelled=("validation",)))
    assert {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, without)}["rounds"].count() == 1
    with pytest.raises(MethodError, match="rounds > 1 needs a train split"):
        METHOD.transform(case.copy(), values(rounds=2), without)


def test_search_tries_few_importances_and_recipes_may_name_any(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))}
    assert found["importance"].choices == ("taylor", "l2", "geometric-median")  # type: ignore[attr-defined]
    for importance in IMPORTANCE.choices:
        pruned = METHOD.transform(case.copy(), values(importance=importance), case.context(tmp_path))
        assert count(pruned) < count(case.model)


def test_work_is_counted_as_the_pruned_network_has_it(make_case: Any, tmp_path: Path) -> None:
    for network in ("plain-cnn", "residual-cnn", "transformer"):
        case = make_case(network)
        context, model = case.context(tmp_path), case.copy()
        groups = removable_groups(model, context)
        cost = cost_of(model, groups, context)
        stay = {g.root: g.channels // 2 for g in groups[1:]}
        prune(model, groups, "l2", stay, context)
        assert cost.at(stay) == macs_of(model, case) and cost.at({}) == cost.total == macs_of(case.model, case)
        after = {**stay, groups[0].root: groups[0].channels // 2}
        assert cost.saved(groups[0].root, groups[0].channels // 2, stay) == pytest.approx(cost.at(stay) - cost.at(after))
