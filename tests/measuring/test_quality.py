"""Quality with its interval, from built-in and users' metrics."""

import numpy as np
import pytest

from orchestrator.errors import InputError, MethodError
from orchestrator.measuring.quality import FunctionMetric, evaluate
from orchestrator.plugin.registry import Registry

METRICS = Registry.discover().metrics()
LABELS = np.array([0, 1, 2, 1])
LOGITS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]


def test_accuracy_is_the_share_of_right_top_classes() -> None:
    found = evaluate(METRICS["accuracy"], [LOGITS], LABELS, None)
    assert (found.value, found.examples, found.difference) == (0.75, 4, None)
    assert found.low < 0.75 < found.high


def test_accuracy_counts_positions_when_each_example_has_several() -> None:
    logits = np.stack([LOGITS, LOGITS])
    assert evaluate(METRICS["accuracy"], [logits], np.stack([LABELS, LABELS]), None).value == 0.75
    dense = np.moveaxis(logits[:, None], 3, 1)  # (N, classes, 1, positions)
    assert evaluate(METRICS["accuracy"], [dense], np.stack([LABELS, LABELS])[:, None], None).value == 0.75


def test_agreement_and_fidelity_compare_with_the_original() -> None:
    original = [np.eye(3, dtype=np.float32)[[0, 1, 1, 0]]]
    assert evaluate(METRICS["agreement"], [LOGITS], None, original).value == 0.75
    assert evaluate(METRICS["fidelity"], [LOGITS], None, original).value == 0.75
    assert evaluate(METRICS["fidelity"], original, None, None).value == 1.0


def test_difference_is_paired_with_the_baseline() -> None:
    found = evaluate(METRICS["accuracy"], [LOGITS], LABELS, [np.eye(3, dtype=np.float32)[LABELS]])
    assert found.difference is not None
    assert found.difference.value == -0.25
    assert found.difference.low < -0.25 < found.difference.high


def test_users_function_may_give_a_score_an_example_or_one_number() -> None:
    scores = FunctionMetric("top1", lambda outputs, labels: outputs.argmax(-1) == labels)
    assert evaluate(scores, [LOGITS], LABELS, None).value == 0.75
    one = FunctionMetric("best", lambda outputs, labels: outputs.max())
    found = evaluate(one, [LOGITS], LABELS, [LOGITS * 2])
    assert (found.value, found.difference is not None and found.difference.value) == (1.0, -1.0)


def test_users_function_may_ask_for_the_reference_and_a_direction() -> None:
    def error(outputs: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return np.abs(outputs - reference).mean(-1)

    error.direction = "minimize"  # type: ignore[attr-defined]
    metric = FunctionMetric("error", error)
    assert (metric.direction, metric.needs_reference) == ("minimize", True)
    assert evaluate(metric, [LOGITS], None, [LOGITS + 1]).value == 1.0


def test_outputs_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(MethodError, match="NaN or infinity"):
        evaluate(METRICS["accuracy"], [LOGITS * np.nan], LABELS, None)


def test_metric_of_the_wrong_shape_is_an_error_that_says_both() -> None:
    with pytest.raises(InputError, match=r"one score for each of 4 examples or a single number, but got shape \(2,\)"):
        evaluate(FunctionMetric("two", lambda outputs, labels: [1.0, 2.0]), [LOGITS], LABELS, None)


def test_labels_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(InputError, match="do not fit top classes"):
        evaluate(METRICS["accuracy"], [LOGITS], LABELS[:, None], None)
    with pytest.raises(InputError, match="mse needs labels"):
        evaluate(METRICS["mse"], [LOGITS], None, None)
