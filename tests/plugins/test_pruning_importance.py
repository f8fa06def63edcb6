"""Which channel each importance takes for the least: constructed cases with one obvious answer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.plugin import MethodError
from orchestrator.plugin.channel_groups import channel_graph
from orchestrator_pruning.importance import ABSOLUTE, MEASURES, scores


def measure(kind: str, model: nn.Module, context: Any) -> dict[str, Tensor]:
    with channel_graph(model, context) as graph:
        groups = graph.groups()
        return dict(zip((g.root for g in groups), scores(kind, model, graph, groups, context), strict=True))


def shrink(case: Any) -> None:
    """Channel 5 gets weights of a thousandth, and a batch norm that hides it from no one."""
    conv = case.model.features[0]
    conv.weight[5] *= 1e-3
    case.model.features[4].weight[:, 5] *= 1e-3


def cut_off(case: Any) -> None:
    """Nothing reads channel 5."""
    case.model.features[4].weight[:, 5] = 0


def scale_away(case: Any) -> None:
    """The batch norm scales channel 5 away."""
    case.model.features[1].weight[5] = 1e-4


def repeat(case: Any) -> None:
    """Channel 5 stands in the middle of all others."""
    weight = case.model.features[0].weight
    weight[5] = weight.mean(0)


def stop(case: Any) -> None:
    """Channel 5 always gives the same."""
    case.model.features[1].weight[5] = 0
    case.model.features[1].bias[5] = 2


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("l1", shrink),
        ("l2", shrink),
        ("taylor", cut_off),
        ("batch-norm-scale", scale_away),
        ("geometric-median", repeat),
        ("activation-entropy", stop),
    ],
)
def test_obvious_channel_is_least(kind: str, change: Any, make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with torch.no_grad():
        change(case)
    score = measure(kind, case.model, case.context(tmp_path))["features.0"]
    assert score.shape == (16,) and int(score.argmin()) == 5
    assert score[5] < 0.9 * score.sort().values[1]


def test_taylor_finds_what_nothing_reads_without_labels(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with torch.no_grad():
        case.model.encoder.layers[1].linear2.weight[:, 7] = 0
    score = measure("taylor", case.model, case.context(tmp_path))["encoder.layers.1.linear1"]
    assert score[7] == 0 and (score > 0).sum() == 63


@pytest.mark.parametrize("kind", MEASURES)
def test_scores_are_of_mean_one_or_in_a_unit_of_their_own(kind: str, make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    first, second = (measure(kind, case.model, case.context(tmp_path)) for _ in range(2))
    assert all(torch.equal(first[root], second[root]) for root in first), "not repeatable"
    assert all(torch.isfinite(score).all() and (score >= 0).all() for score in first.values())
    if kind not in ABSOLUTE:
        torch.testing.assert_close([float(score.mean()) for score in first.values()], [1.0] * len(first))
    assert all(torch.equal(before[name], tensor) for name, tensor in case.model.state_dict().items())
    assert all(p.grad is None for p in case.model.parameters())


def test_chance_depends_on_the_seed_and_the_layer_only(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    first, second = (measure("random", case.model, case.context(tmp_path, seed=seed))["hidden"] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_groups_without_a_batch_norm_are_ranked_by_magnitude(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    scales, magnitudes = (measure(kind, case.model, case.context(tmp_path)) for kind in ("batch-norm-scale", "l2"))
    assert torch.equal(scales["hidden"].argsort(), magnitudes["hidden"].argsort())
    assert float(scales["hidden"].mean()) == pytest.approx(float(scales["features.0"].mean()))


def test_batch_norm_scales_need_a_batch_norm(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with pytest.raises(MethodError, match="no batch norm normalises channels"):
        measure("batch-norm-scale", case.model, case.context(tmp_path))


def test_taylor_needs_examples(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(MethodError, match="needs examples, but the task has none"):
        measure("taylor", case.model, case.context(tmp_path, samples=lambda *_: iter(())))


def test_parts_of_a_grouped_convolution_are_averaged(make_case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(512, 5)).eval()
    found = measure("taylor", model, make_case("plain-cnn").context(tmp_path))
    assert {root: len(score) for root, score in found.items()} == {"0": 4, "1": 4}


def test_effect_of_silencing_is_told_to_first_order(make_case: Any, tmp_path: Path) -> None:
    """The score of a channel is the slope of the loss when all that reads it is turned down."""
    case = make_case("residual-cnn")
    context = case.context(tmp_path)
    batch = next(context.samples(16, 16))
    context = case.context(tmp_path, samples=lambda *_: iter([batch]))
    model = case.copy()
    with channel_graph(model, context) as graph:
        group = next(g for g in graph.groups() if g.root == "stem")
        score = scores("taylor", model, graph, [group], context)[0]
        readers = [m for m in graph.members(group) if not m.outputs]

        def loss() -> float:
            return float(cross_entropy(context.forward(model, batch[0]).detach().double(), batch[1]))

        before, epsilon = loss(), 1e-2
        with torch.no_grad():
            for reader in readers:
                channels = reader.channels[reader.roots == 3]
                reader.module.weight[:, channels] *= 1 - epsilon
        assert abs(loss() - before) / epsilon == pytest.approx(float(score[3]), rel=0.05)
