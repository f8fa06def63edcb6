"""Intervals that hold what they should, as often as they should."""

import numpy as np

from orchestrator.measuring.statistics import (
    mean_interval,
    median_interval,
    outliers,
    rate_interval,
    ratio_interval,
)


def test_rate_interval_is_wilsons() -> None:
    # Wilson (1927) for 81 of 263 at 95 %, as tabulated by Newcombe (1998): 0.2553 to 0.3662.
    low, high = rate_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert rate_interval(10, 10)[1] == 1.0
    assert rate_interval(10, 10)[0] > 0.7


def test_mean_interval_holds_the_mean_in_about_95_of_100() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = mean_interval(generator.normal(1.0, 2.0, 60))
        held += low <= 1.0 <= high
    assert 180 <= held <= 198


def test_median_interval_holds_the_median_of_blocks() -> None:
    generator = np.random.default_rng(0)
    blocks = [generator.normal(10, 1, 50) for _ in range(10)]
    low, high = median_interval([blocks])
    assert low < 10 < high
    assert high - low < 1


def test_processes_that_differ_widen_the_interval_though_each_is_steady() -> None:
    generator = np.random.default_rng(0)

    def rounds(spread: float) -> list[list[np.ndarray]]:
        return [[generator.normal(10 + offset, 0.01, 50) for _ in range(10)] for offset in (0, spread, -spread)]

    steady, differing = median_interval(rounds(0.0)), median_interval(rounds(0.5))
    assert steady[1] - steady[0] < 0.05
    assert differing[0] < 9.6 and differing[1] > 10.4, "ten blocks of one process tell nothing of the next process"


def test_ratio_interval_does_not_see_drift_that_hits_both() -> None:
    generator = np.random.default_rng(0)
    drift = np.linspace(1, 3, 12)
    above = [d * generator.normal(9, 0.1, 30) for d in drift]
    below = [d * generator.normal(10, 0.1, 30) for d in drift]
    value, low, high = ratio_interval([above], [below])
    assert 0.85 < low < value < high < 0.95
    assert abs(value - 0.9) < 0.01


def test_ratio_of_two_alike_is_called_different_in_few_of_many() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        slow = 1 + 0.1 * (generator.random(20) < 0.3)  # a machine that falls into a slower state for some pairs of blocks
        sides = [[[10 * s * generator.normal(1, 0.02, 20) for s in slow]] for _ in range(2)]
        _, low, high = ratio_interval(sides[0], sides[1])
        wrong += not low <= 1 <= high
    assert wrong <= 18, "about 5 % by the interval's own account"


def test_three_slow_blocks_are_not_surer_than_they_can_be() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        sides = [[[np.array([generator.normal(1, 0.05)]) for _ in range(3)]] for _ in range(2)]
        _, low, high = ratio_interval(sides[0], sides[1])
        wrong += not low <= 1 <= high
    assert wrong <= 14, "the extremes of three alone would be wrong in 50 of 200"


def test_far_samples_are_counted_and_stay() -> None:
    samples = np.concatenate([np.linspace(1.0, 1.1, 99), [3.0]])
    assert outliers(samples) == 1
    assert outliers(samples[:-1]) == 0


def test_intervals_are_the_same_for_the_same_data() -> None:
    values = np.random.default_rng(1).random(100)
    assert mean_interval(values) == mean_interval(values)
