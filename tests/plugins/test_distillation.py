"""Distillation: what the student learns, and what is offered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.plugin import Number, Refused
from orchestrator.plugin.losses import TeacherLoss, divergence, mismatch
from orchestrator.plugin.parameters import checked
from orchestrator_distillation.distillation import Distillation

METHOD = Distillation()


def teacher_loss(case: Any, context: Any, **changes: Any) -> TeacherLoss:
    settings = {"classes": case.classes, "temperature": 4.0, "task_loss": context.task_loss, "label_weight": 0.0}
    return TeacherLoss(context.original, context.forward, **{**settings, **changes})


def test_loss_is_zero_for_the_teacher_itself(case: Any, tmp_path: Path) -> None:
    context, batch = case.context(tmp_path), case.batch(8)
    loss = teacher_loss(case, context)
    assert float(loss(case.outputs(case.model, 8), batch, None)) == pytest.approx(0, abs=1e-5)
    assert float(loss(case.outputs(case.model, 8) + torch.randn(8, 1) * torch.randn(1, 1), batch, None)) >= 0


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
    values = checked(METHOD.name, METHOD.parameters, {"epochs": 30, "learning_rate": 0.003})
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
    assert found["temperature"].count() == 2 and found["label_weight"].count() == 2


def test_offer_without_labels_or_classes_leaves_nothing_to_choose(make_case: Any, tmp_path: Path) -> None:
    case = make_case("transformer")
    found = {p.name: p for p in METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path))}
    assert found["temperature"].count() == 1 and found["label_weight"].start == 0.0 and found["label_weight"].count() == 1


def test_offer_without_time_is_refused(make_case: Any, tmp_path: Path) -> None:
    case = make_case("plain-cnn")
    with pytest.raises(Refused, match="pays for no training"):
        METHOD.offer(case.model, METHOD.parameters, case.context(tmp_path, epochs=(0.0, 0.0)))
