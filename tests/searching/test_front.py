"""The front keeps what cannot be told to be worse, and never calls noise a gain."""

import pytest

from orchestrator.searching.front import dominates, pareto_front
from orchestrator.searching.trial import gains
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
    import dataclasses

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
