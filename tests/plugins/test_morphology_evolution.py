"""Evolution by small morphs, the student, and blocks removed evenly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.plugin import MethodError, Refused
from orchestrator.plugin.networks import macs
from orchestrator.values.profile import LatencyModel
from orchestrator_morphology.block_removal import BlockRemoval
from orchestrator_morphology.blocks import RemovedBlock
from orchestrator_morphology.costs import cost, counted_share
from orchestrator_morphology.evolution import Evolution
from orchestrator_morphology.morphs import propose
from orchestrator_morphology.student import Student

WANTED = {"target_share": 0.6, "epochs": 2.0, "among": 1}


def total(model: nn.Module, context: Any) -> int:
    return sum(macs(model, context.forward, context.example).values())


def test_morphs_of_every_kind_are_proposed_and_each_runs_and_saves(make_case: Any, tmp_path: Path) -> None:
    titles = []
    for network in ("plain-cnn", "residual-cnn", "transformer"):
        case = make_case(network)
        context = case.context(tmp_path)
        for morph in propose(case.model, context):
            child = case.copy()
            morph.apply(child)
            assert total(child, context) < total(case.model, context), morph.title
            assert case.outputs(child).shape == case.outputs(case.model).shape
            titles.append(morph.title)
    assert {"fewer channels from features.0", "factors for hidden", "features.4 separated", "without second.1"} <= {*titles}


def test_morph_narrows_by_the_channel_multiple(make_case: Any, target: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    for multiple, width in ((1, 21), (8, 16)):
        context = case.context(tmp_path, target=target(multiple=multiple))
        morph = next(m for m in propose(case.model, context) if m.title == "fewer channels from features.4")
        child = case.copy()
        morph.apply(child)
        assert child.features[4].out_channels == width


@pytest.mark.parametrize("network", ["plain-cnn", "residual-cnn", "transformer"])
@pytest.mark.parametrize("among", [1, 3])
def test_evolution_reaches_the_share_and_is_repeatable(network: str, among: int, make_case: Any, tmp_path: Path) -> None:
    case = make_case(network)
    context = case.context(tmp_path)
    first, second = (Evolution().transform(case.copy(), {**WANTED, "among": among}, context) for _ in range(2))
    assert 0.4 < total(first, context) / total(case.model, context) <= 0.6
    torch.testing.assert_close(case.outputs(first), case.outputs(second), rtol=0, atol=0)


def test_evolution_trains_between_steps_for_the_epochs_asked(make_case: Any, tmp_path: Path) -> None:
    case, spent = make_case("plain-cnn"), []

    def train(model: nn.Module, *, epochs: float, **wishes: Any) -> None:
        spent.append(epochs)
        case.train(model, epochs=epochs, **wishes)

    Evolution().transform(case.copy(), WANTED, case.context(tmp_path, train=train))
    assert sum(spent) == pytest.approx(2.0) and len(spent) > 1


def test_evolution_takes_what_costs_no_accuracy(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    with torch.no_grad():
        case.model.second[1].pointwise.weight.zero_()  # behind a ReLU, so that the block changes nothing
    changed = Evolution().transform(case.copy(), {**WANTED, "target_share": 0.9}, case.context(tmp_path))
    assert isinstance(changed.second[1], RemovedBlock)
    assert not isinstance(changed.first[0], RemovedBlock)


def test_share_out_of_reach_is_an_error(make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    with pytest.raises(MethodError, match="no morph makes this network cheaper than .*target_share=0.01; choose a higher one"):
        Evolution().transform(case.copy(), {**WANTED, "target_share": 0.01}, case.context(tmp_path))


def test_evolution_needs_a_budget_and_countable_layers(make_case: Any, tmp_path: Path) -> None:
    case, method = make_case("plain-cnn"), Evolution()
    with pytest.raises(Refused, match="affords no training"):
        method.offer(case.model, method.parameters, case.context(tmp_path, epochs=(0.0, 0.0)))
    case = make_case("lstm")
    with pytest.raises(Refused, match="neither convolutions nor linear"):
        method.offer(case.model, method.parameters, case.context(tmp_path))


def test_cost_is_in_milliseconds_where_the_profile_has_a_model(make_case: Any, target: Any, tmp_path: Path) -> None:
    case, plain = make_case("residual-cnn"), target()
    prices = LatencyModel(
        runtime="onnxruntime",
        number_format="float32",
        threads=1,
        nanoseconds={"pointwise": 1.0, "depthwise": 2.0, "operator": 1e6},
        error=2.0,
        fitted_on="test",
        source="test",
    )
    profile = replace(plain.profile, latency_models=(prices,))
    context = case.context(tmp_path, target=replace(plain, profile=profile))
    unpriced = case.context(tmp_path, target=replace(plain, profile=replace(plain.profile, latency_models=())))
    counts = macs(case.model, context.forward, context.example)
    depthwise = sum(count for name, count in counts.items() if "depthwise" in name)
    assert cost(case.model, unpriced) == sum(counts.values())
    assert cost(case.model, context) == pytest.approx(len(counts) + (sum(counts.values()) + depthwise) / 1e6)


def test_counted_share_leaves_embeddings_aside(make_case: Any) -> None:
    assert counted_share(make_case("plain-cnn").model) > 0.95
    assert counted_share(make_case("lstm").model) < 0.05
    assert counted_share(nn.Sequential(nn.Embedding(1000, 4), nn.Linear(4, 4))) == 1


class Small(nn.Module):
    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.head = nn.Linear(3, outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.mean((2, 3)))


def test_student_stands_in_for_the_network(make_case: Any, tmp_path: Path) -> None:
    case, method = make_case("plain-cnn"), Student()
    context = case.context(tmp_path, student=Small)
    assert method.offer(case.model, (), context) == () and method.usual
    first, second = (method.transform(case.copy(), {}, context) for _ in range(2))
    assert isinstance(first, Small) and not first.training
    assert torch.equal(first.head.weight, second.head.weight)


def test_making_a_student_leaves_the_random_numbers_as_they_were(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Student().transform(case.copy(), {}, case.context(tmp_path, student=Small))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        (None, "no student was named; give --student file.py:factory"),
        (lambda: Small(7), r"original's shapes \[\[2, 5\]\], but returned \[\[2, 7\]\]"),
        (lambda: nn.Linear(3, 5), "cannot be called as the original is: RuntimeError"),
        (lambda: 1 / 0, "cannot be called as the original is: ZeroDivisionError"),
    ],
)
def test_student_that_does_not_fit_is_refused(student: Any, reason: str, make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context = case.context(tmp_path, student=student)
    with pytest.raises(MethodError, match=reason):
        Student().offer(case.model, (), context)
    with pytest.raises(MethodError, match=reason):
        Student().transform(case.copy(), {}, context)


@pytest.mark.parametrize(("blocks", "gone"), [(1, ["second.0"]), (2, ["first.1", "second.1"])])
def test_blocks_go_evenly_spaced_where_asked(blocks: int, gone: list[str], make_case: Any, tmp_path: Path) -> None:
    case = make_case("residual-cnn")
    changed = BlockRemoval().transform(case.copy(), {"blocks": blocks, "order": "even"}, case.context(tmp_path))
    assert [name for name, module in changed.named_modules() if isinstance(module, RemovedBlock)] == gone
