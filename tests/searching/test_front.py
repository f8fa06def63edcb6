"""The front keeps what cannot be told to be worse, and never calls noise a gain."""

import dataclasses
import math

import pytest

from orchestrator.searching.front import at_best, dominates, faster, latency_noise, pareto_front
from orchestrator.searching.trial import gains
from orchestrator.values.results import CandidateResult
from tests.searching.conftest import Make


def identifiers(front: list[object]) -> list[str]:
    return [c.id for c in front]  # type: ignore[attr-defined]


def test_front_holds_what_no_other_dominates(make: Make) -> None:
    candidates = [
        make("baseline", quality=0.90, latency=10, size=1000),
        make("small", quality=0.89, latency=6, size=300),
        make("worse", quality=0.85, latency=7, size=400),
        make("fast", quality=0.80, latency=3, size=500),
    ]
    assert identifiers(pareto_front(candidates, "maximize")) == ["fast", "small", "baseline"]


def test_smaller_is_better_when_the_metric_is_minimised(make: Make) -> None:
    candidates = [make("baseline", quality=0.5, latency=10), make("better", quality=0.4, latency=9, size=900, baseline=0.5)]
    assert identifiers(pareto_front(candidates, "minimize")) == ["better"]


def test_failed_candidates_are_no_part_of_the_front(make: Make) -> None:
    failed = dataclasses.replace(make("failed", latency=1), state="failed")
    assert identifiers(pareto_front([make("baseline"), failed], "maximize")) == ["baseline"]


def test_measured_time_dominates_only_beyond_the_uncertainty_of_the_ratio(make: Make) -> None:
    def timed(name: str, ratio: float, width: float, trial: int) -> object:
        interval = (ratio, ratio - width, ratio + width)
        return make(
            name, evidence="measured-on-target", latency=10 * ratio, ratio=interval, trial=trial, quality=0.9 + trial / 1e6
        )

    near, clear = timed("near", 0.99, 0.03, 1), timed("clear", 0.80, 0.03, 2)
    slow = timed("slow", 1.0, 0.03, 0)
    assert not dominates(slow, near, "maximize")  # type: ignore[arg-type]
    assert dominates(clear, slow, "maximize")  # type: ignore[arg-type]


def test_of_two_that_cannot_be_told_apart_the_first_stays(make: Make) -> None:
    first, second = make("first", trial=1), make("second", trial=2)
    assert identifiers(pareto_front([second, first], "maximize")) == ["first"]


def test_figures_of_two_kinds_of_evidence_are_never_compared(make: Make) -> None:
    with pytest.raises(ValueError, match="one kind of evidence, but got estimated, measured-on-host"):
        pareto_front([make("a"), make("b", evidence="measured-on-host")], "maximize")


def test_candidate_that_brings_nothing_is_marked(make: Make) -> None:
    baseline = make("baseline", latency=10, size=1000)
    assert gains(900, make("x", latency=12).latency, baseline)
    assert gains(1100, make("x", latency=9).latency, baseline)
    assert not gains(1000, make("x", latency=10).latency, baseline)
    within_noise = make("x", evidence="measured-on-target", latency=9.9, ratio=(0.99, 0.96, 1.01))
    assert not gains(1000, within_noise.latency, baseline)
    beyond_noise = make("x", evidence="measured-on-target", latency=9, ratio=(0.9, 0.88, 0.93))
    assert gains(1000, beyond_noise.latency, baseline)


def on_target(make: Make, name: str, value: float, low: float, high: float, **more: object) -> CandidateResult:
    return make(name, evidence="measured-on-target", latency=10 * value, ratio=(value, low, high), **more)


def test_uncertainty_of_two_times_to_the_baseline_adds_as_independent_errors_do(make: Make) -> None:
    slow = on_target(make, "slow", 1.0, 0.97, 1.03)
    assert not faster(on_target(make, "near", 0.96, 0.96 * 0.97, 0.96 * 1.03), slow), "hypot(3 %, 3 %) is 4.2 %"
    assert faster(on_target(make, "clear", 0.95, 0.95 * 0.97, 0.95 * 1.03), slow)


def test_noise_is_compared_on_a_log_scale(make: Make) -> None:
    quick, slow = on_target(make, "quick", 0.1, 0.05, 0.2), on_target(make, "slow", 1.0, 0.5, 2.0)
    assert faster(quick, slow), "a tenth is beyond two errors of a factor of two"
    assert not faster(on_target(make, "half", 0.5, 0.25, 1.0), slow)


def test_ends_of_the_intervals_that_face_each_other_count(make: Make) -> None:
    skewed = on_target(make, "skewed", 0.9, 0.4, 0.91)
    assert faster(skewed, on_target(make, "slow", 1.0, 0.99, 1.5))
    assert not faster(on_target(make, "skewed-up", 0.9, 0.89, 1.4), on_target(make, "slow", 1.0, 0.99, 1.5))


def test_candidate_is_compared_with_the_baseline_by_its_own_interval_alone(make: Make) -> None:
    baseline = make("baseline", evidence="measured-on-target", latency=10)  # its median's own interval is wide
    assert latency_noise(baseline) == (0.0, 0.0)
    assert faster(on_target(make, "sure", 0.98, 0.97, 0.99), baseline)
    assert not faster(on_target(make, "unsure", 0.98, 0.95, 1.01), baseline)


def test_disturbed_time_needs_a_clearer_lead(make: Make) -> None:
    slow, quick = on_target(make, "slow", 1.0, 0.99, 1.01), on_target(make, "quick", 0.97, 0.96, 0.98)
    assert faster(quick, slow)
    disturbed = dataclasses.replace(quick, latency=[dataclasses.replace(quick.latency[0], disturbed="other work")])
    assert latency_noise(disturbed)[1] == pytest.approx(2 * latency_noise(quick)[1])
    wide = on_target(make, "wide", 0.97, 0.955, 0.99)
    assert faster(wide, slow)
    assert not faster(dataclasses.replace(wide, latency=[dataclasses.replace(wide.latency[0], disturbed="x")]), slow)


def test_estimates_share_their_error_of_scale(make: Make) -> None:
    assert faster(make("a", latency=9.99), make("b", latency=10.0)), "their bands overlap almost wholly, and that says nothing"


def test_times_of_boards_are_compared_by_their_ratios(make: Make) -> None:
    here = on_target(make, "here", 0.8, 0.79, 0.81, trial=1)
    there = on_target(make, "there", 0.9, 0.89, 0.91, trial=2)
    quicker_board = dataclasses.replace(there, latency=[dataclasses.replace(there.latency[0], median_ms=1.0)])
    assert identifiers(pareto_front([here, quicker_board], "maximize")) == ["here"]


def test_nothing_that_is_within_the_noise_dominates(make: Make) -> None:
    better = on_target(make, "better", 0.99, 0.96, 1.02, quality=0.901, trial=1)
    other = on_target(make, "other", 1.0, 0.97, 1.03, quality=0.900, trial=2)
    assert not dominates(better, other, "maximize")
    assert dominates(dataclasses.replace(better, artifact=make("x", size=999).artifact), other, "maximize"), "smaller for sure"


def test_memory_is_no_objective(make: Make) -> None:
    assert dominates(make("a", latency=9, memory=9_000_000), make("b", latency=10, memory=1), "maximize")


def test_candidate_at_its_best_has_its_time_at_the_low_end(make: Make) -> None:
    best = at_best(on_target(make, "a", 1.0, 0.8, 1.2))
    assert best.latency[0].ratio is not None
    assert best.latency[0].ratio.value == pytest.approx(0.8)
    assert best.latency[0].median_ms == pytest.approx(8)
    assert math.isclose(latency_noise(best)[0], math.log(1 / 0.8))
    assert at_best(make("estimated")) == make("estimated")
