"""Distillation: what the student learns, and what is offered."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.plugin import MethodError, Number, Refused
from orchestrator.plugin.losses import TeacherLoss, divergence, mismatch
from orchestrator.plugin.parameters import checked
from orchestrator_distillation.distillation import Distillation
from orchestrator_distillation.hints import gap, stages

METHOD = Distillation()


def forward(model: nn.Module, inputs: Any) -> Any:
    return model(*inputs.values())


def teacher_loss(case: Any, context: Any, **changes: Any) -> TeacherLoss:
    settings = {"classes": case.classes, "temperature": 4.0, "task_loss": context.task_loss, "label_weight": 0.0}
    return TeacherLoss(context.original, context.forward, **{**settings, **changes})


def test_loss_is_zero_for_the_teacher_itself(case: Any, tmp_path: Path) -> None:
    context, batch = case.context(tmp_path), case.batch(8)
    loss = teacher_loss(case, context)
    assert float(loss(case.outputs(case.model, 8), batch, None)) == pytest.approx(0, abs=1e-5)
    shifted = case.outputs(case.model, 8) + torch.randn(8, 1) * torch.randn(1, 1)
    assert float(loss(shifted, batch, None)) >= -1e-5, "softmax ignores the shift; a zero may be rounded to just below it"


def test_label_weight_mixes_the_task_loss_in(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context, batch = case.context(tmp_path), case.batch(8)
    outputs, labels = torch.randn(8, 5), case.labels[:8]
    alone = float(teacher_loss(case, context)(outputs, batch, labels))
    mixed = float(teacher_loss(case, context, label_weight=0.3)(outputs, batch, labels))
    task = float(nn.functional.cross_entropy(outputs, labels))
    assert mixed == pytest.approx(0.3 * task + 0.7 * alone, rel=1e-5)
    assert float(teacher_loss(case, context, label_weight=0.3)(outputs, batch, None)) == pytest.approx(alone)


def test_divergence_is_hintons() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    assert float(divergence(student, teacher, 2.0)) == pytest.approx(4 * float((p * (p / q).log()).sum()), rel=1e-5)


def test_mismatch_does_not_depend_on_the_scale() -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    assert float(mismatch(student, teacher)) == pytest.approx(float(mismatch(100 * student, 100 * teacher)), rel=1e-4)


def test_all_floating_outputs_are_matched(make_case: Any, tmp_path: Path) -> None:
    case = make_case("lstm")

    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"a": x, "rest": (x.mean(-1), x.argmax(-1))}

    context = case.context(tmp_path, original=Both().eval())
    loss = teacher_loss(case, context, classes=None)
    same = Both()(case.batch(4)["sequence"])
    assert float(loss(same, case.batch(4), None)) == pytest.approx(0, abs=1e-6)
    assert float(loss({**same, "a": same["a"] + 1}, case.batch(4), None)) > 0.1


def test_half_precision_students_are_served(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    loss = teacher_loss(case, case.context(tmp_path))
    value = loss(case.outputs(case.model, 8).bfloat16(), case.batch(8), None)
    assert value.dtype == torch.float32 and float(value) < 1e-2


@pytest.mark.parametrize("network", ["plain-cnn", "transformer"])
def test_training_brings_a_damaged_network_back(network: str, make_case: Any, tmp_path: Path) -> None:
    case = make_case(network)
    context = case.context(tmp_path)
    student = case.copy()
    with torch.no_grad():
        student.head.weight.mul_(-0.5)
    loss = teacher_loss(case, context)
    before = float(loss(case.outputs(student, 64), case.batch(64), None))
    values = checked(METHOD.name, METHOD.parameters, {"epochs": 30, "rate": 3.0})
    student = METHOD.transform(student, values, context)
    assert float(loss(case.outputs(student, 64), case.batch(64), None)) < 0.5 * before
    assert all(p.grad is None for p in case.model.parameters())


@pytest.mark.parametrize(("epochs", "expected"), [((1.0, 5.0), [1.0, 3.0, 5.0]), ((0.3, 0.3), [0.3])])
def test_offer_searches_what_the_budget_pays(
    epochs: tuple[float, float], expected: list[float], make_case: Any, tmp_path: Path
) -> None:
    case = make_case("plain-cnn")
    found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, epochs=epochs))}
    number = found["epochs"]
    assert isinstance(number, Number) and number.start == expected[-1]
    assert [number.low + k * number.step for k in range(number.count())] == pytest.approx(expected)
    assert found["temperature"].count() == 3 and found["label_weight"].count() == 3


def test_offer_without_labels_or_classes_leaves_nothing_to_choose(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))}
    assert found["temperature"].count() == 1 and found["label_weight"].start == 0.0 and found["label_weight"].count() == 1


def test_offer_without_time_is_refused(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(Refused, match="affords no training"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, epochs=(0.0, 0.0)))


def test_labels_alone_ask_no_teacher(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")

    class Silent(nn.Module):
        def forward(self, *_: Any) -> None:
            raise AssertionError("the teacher was asked")

    context = case.context(tmp_path, original=Silent())
    outputs, labels = torch.randn(8, 5), case.labels[:8]
    loss = teacher_loss(case, context, label_weight=1.0)
    assert float(loss(outputs, case.batch(8), labels)) == pytest.approx(float(nn.functional.cross_entropy(outputs, labels)))


def test_label_weight_without_labels_is_an_error(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    with pytest.raises(MethodError, match="needs labels, and the train split has none"):
        METHOD.transform(case.copy(), checked(METHOD.name, METHOD.parameters, {"label_weight": 0.3}), case.context(tmp_path))


def test_stages_are_the_last_maps_of_each_resolution(make_case: Any) -> None:
    case = make_case("residual-cnn")
    found = stages(case.model, forward, case.batch())
    assert found == {(8, 8): "first", (4, 4): "second"}
    assert not stages(make_case("lstm").model.head, forward, {"x": torch.randn(2, 24)})


@pytest.mark.parametrize("kind", ["attention", "features"])
def test_gap_is_zero_for_the_same_map_and_falls_in_training(kind: str, make_case: Any, tmp_path: Path) -> None:
    map_ = torch.randn(4, 6, 5, 5)
    assert float(gap(kind, map_, map_)) == pytest.approx(0, abs=1e-6) and float(gap(kind, map_, map_.flip(0))) > 0.01
    assert float(gap(kind, torch.cat([map_, map_], 1), map_)) == pytest.approx(0, abs=1e-5), "channels need not be the same"

    case = make_case("plain-cnn")
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight.add_(0.3 * torch.randn_like(student[0].weight))

    def apart(model: nn.Module) -> float:
        with torch.no_grad():
            return float(gap(kind, *(network[:2](case.batch(64)["image"]) for network in (model, teacher))))

    after = {}
    for hints in ("none", kind):
        values = checked(METHOD.name, METHOD.parameters, {"epochs": 30, "rate": 2.0, "hints": hints})
        after[hints] = apart(METHOD.transform(copy.deepcopy(student), values, case.context(tmp_path, original=teacher)))
    assert after[kind] < 0.9 * after["none"] < apart(student)
    assert not any(module._forward_hooks for network in (student, teacher) for module in network.modules())


def test_hints_need_maps_and_a_teacher(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    context = case.context(tmp_path, example={"x": torch.randn(2, 24)})
    offered = {p.name: p for p in METHOD.offer(make_case("lstm").model.head, METHOD.parameters, context)}
    assert offered["hints"].count() == 1
    with pytest.raises(MethodError, match="hints need the teacher"):
        values = checked(METHOD.name, METHOD.parameters, {"hints": "attention", "label_weight": 1.0})
        METHOD.transform(case.copy(), values, case.context(tmp_path))


def test_sgd_is_offered_first_to_networks_with_batch_norm(make_case: Any, tmp_path: Path) -> None:
    for name, first in (("residual-cnn", "sgd"), ("transformer", "adamw")):
        case = make_case(name)
        found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))}
        assert found["optimizer"].start == first


def test_what_was_chosen_reaches_the_training_loop(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    seen: dict[str, Any] = {}
    context = case.context(tmp_path, train=lambda model, **wishes: seen.update(wishes))
    values = {"optimizer": "sgd", "schedule": "cosine", "rate": 0.5, "epochs": 2}
    METHOD.transform(case.copy(), checked(METHOD.name, METHOD.parameters, values), context)
    del seen["loss"]
    assert seen == {"epochs": 2.0, "learning_rate": 0.025, "optimizer": "sgd", "schedule": "cosine"}
