"""Which model is recommended, and the reason in a sentence."""

from typing import Any

from orchestrator.study.pareto.constraints import Constraints
from orchestrator.study.pareto.recommendation import Recommendation, recommend
from orchestrator.values.direction import Direction
from orchestrator.values.target import Limits
from tests.study.conftest import Make


def choose(front: list[Any], limits: Limits | None = None, **more: Any) -> Recommendation:
    requested = limits or Limits()
    constraints = Constraints(limits=requested, direction=Direction.MAXIMIZE, baseline=front[0], **more)
    return recommend(front, constraints, requested=requested, metric="accuracy")


def test_most_accurate_beyond_noise_then_fastest_is_chosen_under_a_limit_of_latency(make: Make) -> None:
    front = [
        make("baseline", quality=0.90, latency=10),
        make("same", quality=0.898, latency=7, noise=0.01),
        make("same-faster", quality=0.896, latency=5, noise=0.01),
        make("worse", quality=0.85, latency=2, noise=0.01),
    ]
    chosen = choose(front, Limits(max_latency_ms=8))
    assert chosen.id == "same-faster"
    assert "cannot be distinguished from the best" in chosen.reason
    assert "0.50 of the latency (estimated, 5 against 10 ms)" in chosen.reason


def test_fastest_that_keeps_the_drop_beyond_doubt_is_chosen_under_a_limit_of_drop(make: Make) -> None:
    front = [
        make("baseline", quality=0.90, latency=10),
        make("sure", quality=0.898, latency=6, noise=0.005),
        make("doubtful", quality=0.892, latency=4, noise=0.005),
        make("too-far", quality=0.88, latency=2, noise=0.005),
    ]
    assert choose(front, Limits(max_drop=0.01)).id == "sure"


def test_doubt_is_said_where_none_keeps_the_drop_beyond_it(make: Make) -> None:
    front = [make("baseline", quality=0.5, latency=10), make("doubtful", quality=0.493, latency=4, noise=0.005, baseline=0.5)]
    limits = Limits(max_drop=0.01, min_quality=0.49)
    chosen = choose(front, limits)
    assert chosen.id == "doubtful"
    assert "though its 95 % interval reaches beyond them" in chosen.reason


def test_knee_is_chosen_without_limits_among_useful_models(make: Make) -> None:
    front = [
        make("baseline", quality=0.90, latency=10),
        make("knee", quality=0.895, latency=3, noise=0.001),
        make("steep", quality=0.86, latency=2.5, noise=0.001),
        make("ruined", quality=0.1, latency=0.01, noise=0.001),
    ]
    chosen = choose(front, useful_drop=0.05)
    assert chosen.id == "knee"
    assert "knee of the front among models that lose at most 5% of the accuracy" in chosen.reason


def test_original_is_recommended_when_nothing_is_better(make: Make) -> None:
    chosen = choose([make("baseline")])
    assert chosen.id == "baseline"
    assert chosen.reason.startswith("The original. ")


def test_nearest_and_what_to_relax_are_named_when_nothing_keeps_the_limits(make: Make) -> None:
    front = [make("baseline", latency=10, size=1000), make("near", latency=5, size=600), make("far", latency=9, size=100)]
    chosen = choose(front, Limits(max_latency_ms=4))
    assert chosen.id is None
    assert (
        chosen.reason
        == "No model satisfies every limit. The nearest is near: it would need --max-latency 5ms instead of 4ms (+1ms)."
    )


def test_relaxed_limits_are_rounded_to_what_would_be_kept(make: Make) -> None:
    front = [make("baseline", latency=10, size=1_000_000), make("near", latency=5.0123, size=654_321, quality=0.8512)]
    reason = choose(front, Limits(max_latency_ms=4, max_size_bytes=600_000, min_quality=0.86)).reason
    assert "--max-latency 5.02ms instead of 4ms (+1ms)" in reason
    assert "--max-size 654.4kB instead of 600kB (+54kB)" in reason
    assert "--min-quality 0.8512 instead of 0.86 (-0.0088)" in reason


def test_profile_limits_are_kept_though_nobody_asked(make: Make) -> None:
    front = [make("baseline", memory=5_000_000), make("small", latency=9, memory=1_000_000)]
    constraints = Constraints(
        limits=Limits(max_memory_bytes=2_000_000), direction=Direction.MAXIMIZE, baseline=front[0], useful_drop=0.05
    )
    chosen = recommend(front, constraints, requested=Limits(), metric="accuracy")
    assert chosen.id == "small"
    assert "No limits were given" in chosen.reason
