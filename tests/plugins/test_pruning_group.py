"""A ratio for each group, and network slimming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.plugin import MethodError, Number, ParameterError, Refused
from orchestrator.plugin.parameters import checked
from orchestrator_pruning.group import GroupPruning
from orchestrator_pruning.slimming import NetworkSlimming

GROUPS, SLIMMING = GroupPruning(), NetworkSlimming()


def values(method: Any, **given: Any) -> dict[str, Any]:
    return checked(method.name, method.parameters, given)


def test_each_group_loses_its_own_share_and_others_nothing(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    ratios = {"ratio:features.0": 0.5, "ratio:hidden": 0.25}
    pruned = GROUPS.transform(case.copy(), values(GROUPS, **ratios), case.context(tmp_path))
    assert (pruned.features[0].out_channels, pruned.features[4].out_channels, pruned.hidden.out_features) == (8, 24, 24)


def test_offer_spells_the_groups_out(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    offered = GROUPS.offer(case.model, GROUPS.parameters, case.context(tmp_path))
    assert [p.name for p in offered] == ["ratio:features.0", "ratio:features.4", "ratio:hidden", "importance"]
    assert all(p.low == 0 and p.high <= 0.7 for p in offered if isinstance(p, Number))
    pruned = GROUPS.transform(case.copy(), checked(GROUPS.name, offered, {}), case.context(tmp_path))
    assert pruned.hidden.out_features == 22


def test_sensitive_groups_are_offered_less(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    tables = {
        "features.0": [[0.0, 0.0], [0.25, 0.4], [0.5, 0.8]],
        "features.4": [[0.0, 0.0], [0.25, 0.05], [0.75, 0.3]],
        "hidden": [[0.0, 0.0], [0.25, 5.0], [0.5, 9.0]],
    }
    offered = GROUPS.offer(case.model, GROUPS.parameters, case.context(tmp_path, remember=lambda *_: tables))
    assert [p.high for p in offered if isinstance(p, Number)] == [0.3, 0.7, 0.2]


def test_of_many_groups_those_with_the_most_work_are_offered(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    widths = [4 + 4 * (k % 3) for k in range(31)]
    layers = [nn.Linear(a, b) for a, b in zip([192, *widths[:-1]], widths, strict=True)]
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 5)).eval()
    offered = GROUPS.offer(model, GROUPS.parameters, make_case("plain-cnn").context(tmp_path))
    names = [p.name for p in offered if isinstance(p, Number)]
    assert len(names) == 24 and names[0] == "ratio:1"
    assert names == sorted(names, key=lambda name: int(name.removeprefix("ratio:"))), "not in the order of the network"
    left_out = {f"ratio:{k + 1}" for k in range(31)} - set(names)
    assert all(widths[int(name.removeprefix("ratio:")) - 1] == 4 for name in left_out)


@pytest.mark.parametrize(
    ("ratios", "reason"),
    [
        ({"ratio:features.9": 0.5}, "no group of channels is named 'features.9'; there are features.0, features.4, hidden"),
        ({}, "remove no channel in multiples of 1"),
        ({"ratio:hidden": 0.0}, "remove no channel in multiples of 1"),
    ],
)
def test_transform_says_what_is_wrong(ratios: Any, reason: str, make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(MethodError, match=reason):
        GROUPS.transform(case.copy(), values(GROUPS, **ratios), case.context(tmp_path))


def test_ratios_are_checked() -> None:
    with pytest.raises(ParameterError, match="`ratio:hidden` must be a number"):
        values(GROUPS, **{"ratio:hidden": 2.0})


def test_groups_are_refused_where_there_are_none(make_case: Any, tmp_path: Path) -> None:
    case = make_case("lstm")
    with pytest.raises(Refused, match="no group of layers can lose channels"):
        GROUPS.offer(case.model, GROUPS.parameters, case.context(tmp_path))


def test_channels_of_the_smallest_scales_go_and_layers_without_stay(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")

    def train(model: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            model.features[1].weight[[2, 9]] = torch.tensor([1e-5, 2e-5])

    context = case.context(tmp_path, train=train)
    pruned = SLIMMING.transform(case.copy(), values(SLIMMING, ratio=0.13), context)
    assert pruned.features[0].out_channels == 14 and float(pruned.features[1].weight.abs().min().detach()) > 1e-4
    assert (pruned.features[4].out_channels, pruned.hidden.out_features) == (24, 32)


def test_penalty_is_what_shrinks_them(make_case: Any, tmp_path: Path) -> None:
    sums = []
    for penalty in (0.0001, 0.01):
        case = make_case("residual-cnn")
        pruned = SLIMMING.transform(case.copy(), values(SLIMMING, epochs=30, penalty=penalty), case.context(tmp_path))
        sums.append(sum(float(m.weight.detach().abs().mean()) for m in pruned.modules() if isinstance(m, nn.BatchNorm2d)))
    assert sums[1] < sums[0]


def test_slimming_is_refused_without_batch_norms_or_time(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with pytest.raises(Refused, match="no batch norm normalises channels that can be removed"):
        SLIMMING.offer(case.model, SLIMMING.parameters, case.context(tmp_path))
    with pytest.raises(MethodError, match="no batch norm normalises channels"):
        SLIMMING.transform(case.copy(), values(SLIMMING), case.context(tmp_path))
    case = make_case("plain-cnn")
    with pytest.raises(Refused, match="the budget affords no training"):
        SLIMMING.offer(case.model, SLIMMING.parameters, case.context(tmp_path, epochs=(0.0, 0.0)))


def test_slimming_spends_half_of_the_epochs_that_a_recovery_may_take(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context = replace(case.context(tmp_path), epochs=(0.5, 3.0))
    epochs = next(p for p in SLIMMING.offer(case.model, SLIMMING.parameters, context) if p.name == "epochs")
    assert (epochs.start, epochs.count()) == (1.5, 1)
