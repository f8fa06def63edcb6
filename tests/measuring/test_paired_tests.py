"""Is a candidate worse on the same examples? Tests by hand-computed values, intervals by how often they hold."""

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestrator.errors import InputError
from orchestrator.measuring.paired_tests import (
    CONFIDENCE,
    SIGNIFICANCE,
    mcnemar,
    paired_drop,
    paired_mean_interval,
    paired_share_interval,
)
from orchestrator.measuring.quality import FunctionMetric, evaluate
from orchestrator.measuring.sequential_test import drop_judged
from orchestrator.plugin.metric import Metric
from orchestrator.values.direction import Direction
from orchestrator_metrics.classification import Accuracy
from orchestrator_metrics.fidelity import Fidelity
from orchestrator_metrics.regression import MeanSquaredError


def answers(labels: np.ndarray, wrong: "np.ndarray | range") -> list[np.ndarray]:
    """Logits of a classifier of three classes that is wrong on some examples."""
    given = labels.copy()
    given[wrong] = (given[wrong] + 1) % 3
    return [np.eye(3, dtype=np.float32)[given]]


def labels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, count)


def test_mcnemar_is_the_binomial_tail_of_the_examples_on_which_models_differ() -> None:
    assert mcnemar(8, 2) == pytest.approx(56 / 1024)  # (45 + 10 + 1) / 2**10
    assert mcnemar(3, 0) == pytest.approx(1 / 8)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 7) == 1.0
    assert mcnemar(40, 21) == pytest.approx(binomtest(40, 61, alternative="greater").pvalue)


def test_two_of_a_thousand_images_are_no_regression() -> None:
    """0.2 points: twelve lost, ten gained. The limit is half a point."""
    truth = labels(1000)
    found = paired_drop(Accuracy(), answers(truth, range(50, 62)), answers(truth, range(10)), truth)
    assert (found.lost, found.gained, found.test) == (12, 10, "McNemar, exact")
    assert found.drop == pytest.approx(0.002)
    assert found.low < 0 < 0.002 < found.high
    assert drop_judged(found, 0.005) == "ok"


def test_a_clearly_worse_classifier_is_a_regression() -> None:
    truth = labels(1000)
    found = paired_drop(Accuracy(), answers(truth, range(60)), answers(truth, range(10)), truth)
    assert found.drop == pytest.approx(0.05) and found.low > 0.03
    assert found.p_value == pytest.approx(2.0**-50)
    assert drop_judged(found, 0.005) == "regressed"
    assert drop_judged(found, 0.10) == "ok", "that much is allowed"


def test_a_significant_loss_below_the_limit_is_allowed() -> None:
    truth = labels(20_000)
    found = paired_drop(Accuracy(), answers(truth, range(60)), answers(truth, range(0)), truth)
    assert found.p_value < 1e-6 and found.high < 0.005
    assert drop_judged(found, 0.005) == "ok"


def test_one_lost_example_of_few_is_no_proof() -> None:
    truth = labels(20)
    found = paired_drop(Accuracy(), answers(truth, range(1)), answers(truth, range(0)), truth)
    assert found.drop == pytest.approx(0.05) and drop_judged(found, 0.005) == "ok"


@pytest.mark.parametrize(("lose", "gain", "count"), [(0.05, 0.03, 300), (0.02, 0.02, 100), (0.1, 0.0, 60)])
def test_interval_of_paired_shares_holds_as_often_as_it_says(lose: float, gain: float, count: int) -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        lost, gained, _ = random.multinomial(count, [lose, gain, 1 - lose - gain])
        low, high = paired_share_interval(int(lost), int(gained), count)
        held += low <= lose - gain <= high
    assert held / 1000 >= CONFIDENCE - 0.015


@pytest.mark.parametrize(("count", "skewed"), [(10, False), (10, True), (60, False), (60, True)])
def test_paired_bootstrap_holds_nearly_as_often_as_it_says(count: int, skewed: bool) -> None:
    random = np.random.default_rng(4)
    draws, held = 120, 0
    for _ in range(draws):
        values = random.exponential(1.0, count) - 1 if skewed else random.normal(0, 1, count)
        low, high, _ = paired_mean_interval(values)
        held += low <= 0 <= high
    assert held / draws >= CONFIDENCE - 0.03


def test_paired_bootstrap_of_very_few_knows_nothing() -> None:
    low, high, p_value = paired_mean_interval(np.full(9, 0.5))
    assert (low, high, p_value) == (-np.inf, np.inf, 1.0)
    low, _, p_value = paired_mean_interval(np.full(10, 0.5))
    assert low == 0.5 and p_value >= 0.5**10


def test_paired_bootstrap_calls_no_more_false_alarms_than_it_may() -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(150):
        low, _, p_value = paired_mean_interval(random.standard_t(4, 80))
        alarms += low > 0 and p_value <= SIGNIFICANCE
    assert alarms <= 5  # 1.5 are expected


def test_of_an_error_more_is_worse() -> None:
    truth = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    near, far = [truth + 0.1], [truth + 0.5]
    found = paired_drop(MeanSquaredError(), far, near, truth)
    assert found.drop == pytest.approx(0.24, rel=1e-3) and found.low > 0.2
    assert found.test == "paired bootstrap" and found.lost is None
    assert paired_drop(MeanSquaredError(), near, far, truth).drop < 0


def test_without_labels_the_outputs_themselves_are_compared() -> None:
    original = [np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)]
    same = paired_drop(Fidelity(), original, original, None)
    assert same.drop == pytest.approx(0, abs=1e-9) and drop_judged(same, 0.005) == "ok"
    other = [original[0] + np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)]
    assert drop_judged(paired_drop(Fidelity(), other, original, None), 0.005) == "regressed"


def test_a_metric_that_is_no_mean_of_examples_is_called_on_resampled_ones() -> None:
    def macro_recall(outputs: np.ndarray, truth: np.ndarray) -> float:
        top = outputs.argmax(-1)
        return float(np.mean([(top[truth == k] == k).mean() for k in range(3)]))

    truth = labels(300)
    metric = FunctionMetric("macro_recall", macro_recall)
    worse = paired_drop(metric, answers(truth, range(90)), answers(truth, range(10)), truth)
    assert worse.low < worse.drop < worse.high and drop_judged(worse, 0.005) == "regressed"
    assert drop_judged(paired_drop(metric, answers(truth, range(12)), answers(truth, range(10)), truth), 0.005) == "ok"


def test_interval_is_paired_and_never_empty_when_all_examples_agree() -> None:
    truth = labels(1000)
    better = evaluate(Accuracy(), answers(truth, range(370)), truth, answers(truth, range(400)))
    assert better.difference is not None and better.difference.value == pytest.approx(0.03)
    assert 0.015 < better.difference.low < 0.03 < better.difference.high < 0.045
    same = evaluate(Accuracy(), answers(truth[:4], range(1)), truth[:4], answers(truth[:4], range(1)))
    assert same.difference is not None and same.difference.low < 0 < same.difference.high


@pytest.mark.parametrize("lost", [1, 8, 30])
@pytest.mark.parametrize("metric", [Accuracy(), MeanSquaredError(), Fidelity()], ids=lambda metric: metric.name)
def test_search_and_check_agree_on_the_same_examples(metric: Metric, lost: int) -> None:
    truth = labels(200)
    worse, original = answers(truth, range(lost)), answers(truth, range(0))
    targets = original[0] if metric.name == "mse" else truth
    searched = evaluate(metric, worse, targets, original).difference
    checked = paired_drop(metric, worse, original, targets, confidence=0.95)
    assert searched is not None
    sign = Direction(metric.direction).sign
    assert searched.value == pytest.approx(-sign * checked.drop)
    assert sorted((searched.low, searched.high)) == pytest.approx(sorted((-sign * checked.low, -sign * checked.high)))


def test_difference_is_bounded_by_what_was_observed_when_examples_are_too_few_for_an_interval() -> None:
    near, far = [np.zeros((5, 1))], [np.array([[1.0], [2.0], [0.0], [0.0], [0.0]])]
    difference = evaluate(MeanSquaredError(), far, np.zeros((5, 1)), near).difference
    assert difference is not None and (difference.low, difference.high) == (0.0, 4.0)


def test_a_metric_of_the_wrong_shape_is_one_clear_line() -> None:
    metric = FunctionMetric("pairs", lambda outputs, truth: np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"one score for each of 30 examples or a single number, but got shape \(2, 2\)"):
        paired_drop(metric, answers(labels(30), range(1)), answers(labels(30), range(0)), labels(30))
