"""The front keeps what cannot be told to be worse, and never calls noise a gain."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from orchestrator.study.pareto.constraints import Constraints
from orchestrator.study.pareto.dominance import (
    at_best,
    comparable,
    dominates,
    faster,
    gains,
    latency_noise,
    relative_latency,
    size_of,
)
from orchestrator.study.pareto.front import ParetoFront
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult
from orchestrator.values.target import Limits
from tests.study.conftest import Make


def front_of(candidates: Sequence[CandidateResult], direction: Direction, limits: Limits | None = None) -> ParetoFront:
    request = SimpleNamespace(limits=limits or Limits(), useful_drop=None)
    known = {c.id: c for c in candidates}
    return ParetoFront(known, request, SimpleNamespace(direction=direction))  # type: ignore[arg-type]


def identifiers(candidates: Sequence[CandidateResult]) -> list[str]:
    return [c.id for c in candidates]


def test_front_holds_what_no_other_dominates(make: Make) -> None:
    candidates = [
        make("baseline", quality=0.90, latency=10, size=1000),
        make("small", quality=0.89, latency=6, size=300),
        make("worse", quality=0.85, latency=7, size=400),
        make("fast", quality=0.80, latency=3, size=500),
    ]
    assert identifiers(front_of(candidates, Direction.MAXIMIZE).front()) == ["fast", "small", "baseline"]


def test_smaller_is_better_when_the_metric_is_minimised(make: Make) -> None:
    candidates = [make("baseline", quality=0.5, latency=10), make("better", quality=0.4, latency=9, size=900, baseline=0.5)]
    assert identifiers(front_of(candidates, Direction.MINIMIZE).front()) == ["better"]


def test_failed_candidates_are_no_part_of_the_front(make: Make) -> None:
    failed = dataclasses.replace(make("failed", latency=1), state="failed")
    assert identifiers(front_of([make("baseline"), failed], Direction.MAXIMIZE).front()) == ["baseline"]


def test_measured_time_dominates_only_beyond_the_uncertainty_of_the_ratio(make: Make) -> None:
    def timed(name: str, ratio: float, width: float, trial: int) -> object:
        interval = (ratio, ratio - width, ratio + width)
        return make(
            name, evidence="measured-on-target", latency=10 * ratio, ratio=interval, trial=trial, quality=0.9 + trial / 1e6
        )

    near, clear = timed("near", 0.99, 0.03, 1), timed("clear", 0.80, 0.03, 2)
    slow = timed("slow", 1.0, 0.03, 0)
    assert not dominates(slow, near, Direction.MAXIMIZE)  # type: ignore[arg-type]
    assert dominates(clear, slow, Direction.MAXIMIZE)  # type: ignore[arg-type]


def test_of_two_that_cannot_be_told_apart_the_first_stays(make: Make) -> None:
    first, second = make("first", trial=1), make("second", trial=2)
    assert identifiers(front_of([second, first], Direction.MAXIMIZE).front()) == ["first"]


def test_figures_of_two_kinds_of_evidence_are_never_compared(make: Make) -> None:
    with pytest.raises(ValueError, match="one kind of evidence, but got estimated, measured-on-host"):
        front_of([make("a"), make("b", evidence="measured-on-host")], Direction.MAXIMIZE).front()


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
    assert identifiers(front_of([here, quicker_board], Direction.MAXIMIZE).front()) == ["here"]


def test_nothing_that_is_within_the_noise_dominates(make: Make) -> None:
    better = on_target(make, "better", 0.99, 0.96, 1.02, quality=0.901, trial=1)
    other = on_target(make, "other", 1.0, 0.97, 1.03, quality=0.900, trial=2)
    assert not dominates(better, other, Direction.MAXIMIZE)
    assert dominates(dataclasses.replace(better, artifact=make("x", size=999).artifact), other, Direction.MAXIMIZE), (
        "smaller for sure"
    )


def test_memory_is_no_objective(make: Make) -> None:
    assert dominates(make("a", latency=9, memory=9_000_000), make("b", latency=10, memory=1), Direction.MAXIMIZE)


def test_candidate_at_its_best_has_its_time_at_the_low_end(make: Make) -> None:
    best = at_best(on_target(make, "a", 1.0, 0.8, 1.2))
    assert best.latency[0].ratio is not None
    assert best.latency[0].ratio.value == pytest.approx(0.8)
    assert best.latency[0].median_ms == pytest.approx(8)
    assert math.isclose(latency_noise(best)[0], math.log(1 / 0.8))
    assert at_best(make("estimated")) == make("estimated")


# -- the vectorised front is the one by definition ---------------------------------------------------------------------------


LIMITS = Limits(max_latency_ms=11.0, max_memory_bytes=2_000_000)


def judged(candidate: CandidateResult, baseline: CandidateResult, direction: Direction) -> CandidateResult:
    constraints = Constraints(limits=LIMITS, direction=direction, baseline=baseline)
    return dataclasses.replace(candidate, feasible=constraints.satisfied(candidate))


def drawn(make: Make, random: np.random.Generator, count: int, direction: Direction) -> list[CandidateResult]:
    """Candidates on a coarse grid, so that there are ties; with and without noise, disturbed, failed, without a ratio."""
    measured = random.random() < 0.7
    evidence = "measured-on-target" if measured else "estimated"
    noise = random.choice([0.0, 0.01, 0.03])
    baseline = make("baseline", evidence=evidence, latency=10.0, noise=0.0)
    found = [judged(baseline, baseline, direction)]
    for k in range(count):
        value = float(random.integers(6, 13)) / 10
        width = float(random.choice([0.0, 0.05, 0.2, 1.5])) * value
        candidate = make(
            f"c{random.integers(10**6)}-{k}",
            quality=0.8 + float(random.integers(0, 12)) / 100,
            noise=float(noise * random.integers(0, 3)),
            latency=10 * value,
            size=int(random.integers(8, 12)) * 100,
            evidence=evidence,
            ratio=(value, value - width, value + width) if measured and random.random() < 0.95 else None,
            trial=int(random.integers(0, count)),
            memory=int(random.choice([1_000_000, 3_000_000])),
        )
        if random.random() < 0.2:
            candidate = dataclasses.replace(
                candidate, latency=[dataclasses.replace(candidate.latency[0], disturbed="other work")]
            )
        if random.random() < 0.1:
            candidate = dataclasses.replace(candidate, state="failed")
        found.append(judged(candidate, baseline, direction) if candidate.state == "complete" else candidate)
    return found


def undominated(known: Sequence[CandidateResult], direction: Direction) -> list[CandidateResult]:
    complete = comparable(known)
    return [c for c in complete if not any(dominates(other, c, direction) for other in complete if other is not c)]


def front_by_definition(known: Sequence[CandidateResult], direction: Direction) -> list[str]:
    feasible = [c for c in known if c.feasible]
    both = {c.id: c for c in (*undominated(known, direction), *undominated(feasible, direction))}
    return [c.id for c in sorted(both.values(), key=lambda c: (relative_latency(c), size_of(c)))]


def near_misses_by_definition(known: Sequence[CandidateResult], direction: Direction) -> list[str]:
    """On the front, by all or by what keeps the limits, if the time were at its low end; the least behind first."""
    complete = [c for c in known if c.state == "complete"]
    able = [c for c in complete if c.feasible]
    front, found = front_by_definition(known, direction), []
    for candidate in complete:
        best = judged(at_best(candidate), known[0], direction)
        for others in (complete, *([able] if best.feasible else [])):
            others = [other for other in others if other is not candidate]
            if candidate.id not in front and not any(dominates(other, best, direction) for other in others):
                above = [other for other in others if dominates(other, candidate, direction)]
                behind = max((relative_latency(candidate) / relative_latency(other) for other in above), default=1.0)
                found.append((behind, candidate.id))
                break
    return [name for _, name in sorted(found)]


@pytest.mark.parametrize("direction", list(Direction))
def test_vectorised_front_is_the_front_by_definition(make: Make, direction: Direction) -> None:
    random = np.random.default_rng(5)
    for _ in range(100):
        known = drawn(make, random, int(random.integers(1, 40)), direction)
        front = front_of(known, direction, LIMITS)
        assert identifiers(front.front()) == front_by_definition(known, direction)
        expected = [name for name in near_misses_by_definition(known, direction) if name != "baseline"]
        assert identifiers(front.near_misses()) == (expected if front.measured_on_target else [])


def test_front_of_many_candidates_is_the_front_by_definition(make: Make) -> None:
    known = drawn(make, np.random.default_rng(1), 200, Direction.MAXIMIZE)
    assert identifiers(front_of(known, Direction.MAXIMIZE, LIMITS).front()) == front_by_definition(known, Direction.MAXIMIZE)


def test_values_of_unchanged_candidates_are_reused(make: Make) -> None:
    rows: dict[str, tuple[float, ...]] = {}
    known = {c.id: c for c in (make("a"), make("b", quality=0.8))}
    request, task = SimpleNamespace(limits=Limits(), useful_drop=None), SimpleNamespace(direction=Direction.MAXIMIZE)
    assert identifiers(ParetoFront(known, request, task, rows).front()) == ["a"]  # type: ignore[arg-type]
    known["a"] = make("a", quality=0.7)
    del rows["a"]
    assert identifiers(ParetoFront(known, request, task, rows).front()) == ["b"]  # type: ignore[arg-type]
    assert rows.keys() == known.keys()
