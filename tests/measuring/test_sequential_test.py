"""The decision over rounds of timing, on made-up rounds: how often it is wrong, and when it looks."""

import math

import numpy as np
import pytest

from orchestrator.measuring.paired_tests import SIGNIFICANCE
from orchestrator.measuring.sequential_test import RatioTest, judged, round_ratio


def run(random: np.random.Generator, *, ratio: float, spread: float, most: int = 40, tails: bool = False) -> RatioTest:
    """A check whose rounds scatter around a true ratio."""
    test = RatioTest(0.05)
    while not test.decided and test.rounds < most:
        test.add(ratio * math.exp(spread * (random.standard_t(2) if tails else random.normal())))
    test.close()
    return test


@pytest.mark.parametrize(("spread", "tails"), [(0.005, False), (0.03, False), (0.1, False), (0.02, True), (0.1, True)])
def test_copies_are_never_called_slower_however_noisy_the_machine(spread: float, tails: bool) -> None:
    random = np.random.default_rng(1)
    verdicts = [run(random, ratio=1.0, spread=spread, tails=tails).verdict for _ in range(150)]
    assert "regressed" not in verdicts
    if spread <= 0.03:
        assert verdicts.count("ok") > 135


def test_even_at_the_limit_itself_a_false_alarm_is_rare() -> None:
    """Many looks at one check: their errors must not add up."""
    random = np.random.default_rng(2)
    found = [run(random, ratio=1.05, spread=0.02) for _ in range(1000)]
    wrong = sum(test.verdict == "regressed" for test in found)
    assert wrong <= 1000 * SIGNIFICANCE + 3 * math.sqrt(1000 * SIGNIFICANCE)
    assert max(test.looks for test in found) >= 6


def test_ten_per_cent_more_work_is_found() -> None:
    random = np.random.default_rng(3)
    found = [run(random, ratio=1.10, spread=0.01) for _ in range(200)]
    assert all(test.verdict == "regressed" for test in found)
    assert np.median([test.rounds for test in found]) == 4


def test_it_looks_after_half_as_many_rounds_again_each_time() -> None:
    test, looked = RatioTest(0.05), []
    for k in range(40):
        before = test.looks
        test.add(0.5 if k % 2 else 2.2)
        if test.looks > before:
            looked.append(test.rounds)
    assert looked == [4, 6, 9, 14, 21, 32]
    assert test.verdict == "undecided"


def test_a_verdict_stands_and_its_interval_with_it() -> None:
    test = RatioTest(0.05)
    for ratio in (1.20, 1.21, 1.19, 1.20):
        test.add(ratio)
    assert test.verdict == "regressed" and test.interval is not None
    before = test.interval
    for _ in range(10):
        test.add(1.0)
    assert test.interval == before and test.rounds == 4
    assert before.low == pytest.approx(1.176, abs=0.001) and before.confidence == pytest.approx(0.99)


def test_what_came_after_the_last_look_is_looked_at_in_the_end() -> None:
    test = RatioTest(0.05)
    for ratio in (1.0, 1.001, 0.999):
        test.add(ratio)
    assert test.interval is None
    test.close()
    assert test.verdict == "ok" and test.looks == 1


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_single_round_says_nothing(rounds: int) -> None:
    test = RatioTest(0.05)
    for _ in range(rounds):
        test.add(3.0)
    test.close()
    assert test.verdict == "undecided" and test.interval is None


def test_limit_belongs_to_what_is_allowed() -> None:
    assert judged(1.0, 1.05, 0.05) == "ok"
    assert judged(1.0501, 1.2, 0.05) == "regressed"
    assert judged(1.04, 1.06, 0.05) == "undecided"
    assert judged(0.5, 0.6, 0.0) == "ok"


def test_drift_and_a_burst_hit_both_sides_of_a_pair() -> None:
    drift = (1.0, 1.3, 1.7, 2.1, 2.6)

    def table(base: float, burst: int) -> list[tuple[int, int, float, float]]:
        return [
            (0, block, base * factor * (5 if block == burst else 1), base) for block, factor in enumerate(drift) for _ in range(7)
        ]

    assert round_ratio(table(1.1, burst=2), table(1.0, burst=4), 2) == pytest.approx(1.1)
    assert round_ratio(table(1.1, burst=2), table(1.0, burst=4), 3) == pytest.approx(1.1)
