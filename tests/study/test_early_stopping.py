"""Early stopping for the Pareto front: nothing that may reach it is stopped, and what cannot is."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.study.pareto.early_stopping import EarlyStopping
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, Foreseen, LatencyResult, Rung
from orchestrator.values.target import Limits

Make = Callable[..., CandidateResult]


def stopping(
    candidates: list[CandidateResult],
    *,
    direction: Direction = Direction.MAXIMIZE,
    useful_drop: float | None = None,
    **limits: Any,
) -> EarlyStopping:
    request = SimpleNamespace(limits=Limits(**limits), useful_drop=useful_drop)
    task = SimpleNamespace(direction=direction, metric="accuracy")
    return EarlyStopping({c.id: c for c in candidates}, request, task)  # type: ignore[arg-type]


def rungs(*qualities: float) -> list[Rung]:
    return [
        Rung(step="recovery", call=0, share=share, quality=quality, examples=512)
        for share, quality in zip((0.0, 0.25, 0.5), qualities, strict=False)
    ]


def costs(latency_ms: float, size: int, *, low: float = 0.8) -> Foreseen:
    latency = LatencyResult(
        evidence="estimated",
        device="board",
        runtime="onnxruntime",
        threads=1,
        median_ms=latency_ms,
        low_ms=low * latency_ms,
        high_ms=latency_ms / low,
    )
    return Foreseen(size_bytes=size, macs=1, latency=latency)


def looked_at(make: Make, identifier: str, latency_ms: float, size: int, **more: Any) -> CandidateResult:
    """A candidate that was looked at untrained, and no more."""
    blank = replace(make(identifier), state="stopped", quality=None, artifact=None, latency=[])
    return replace(blank, foreseen=costs(latency_ms, size), **more)


def trained(make: Make, count: int = 5, *, feasible: bool = True) -> list[CandidateResult]:
    """The original and some candidates of 5 ms and 500 bytes that ended at 0.85 from 0.5, 0.7 and 0.8."""
    found = [replace(make("baseline", quality=0.9, latency=10, size=1000), feasible=feasible)]
    for k in range(count):
        made = make(f"c{k}", quality=0.85, latency=5 + 0.01 * k, size=500 + k, trial=k)
        spread = 0.01 * (k - 2)
        found.append(replace(made, rungs=rungs(0.5 + spread, 0.7 + spread, 0.8 + spread), feasible=feasible))
    return found


def test_a_floor_is_what_must_be_surpassed_less_what_trainings_still_gain(make: Make) -> None:
    known = trained(make)
    dear = looked_at(make, "dear", 8.0, 800)
    floors = stopping(known).floors(dear)
    # 0.85 is there at lower costs; from half of the training on up to 0.07 was gained, with a spread of 0.016.
    assert floors["recovery#0 of 0@0.5"].needed == pytest.approx(0.85 - 0.07 - 0.0158, abs=1e-3)
    assert floors["recovery#0 of 0@0.25"].needed == pytest.approx(0.85 - 0.17 - 0.0158, abs=1e-3)
    assert stopping(known).floors(looked_at(make, "small", 8.0, 400)) == {}, "nothing is as small: it may be as bad as it likes"
    assert stopping(known).floors(looked_at(make, "fast", 2.0, 800)) == {}
    assert stopping(known[:-1]).floors(dear) == {}, "too few show what a training gains"
    assert stopping(known).floors(make("unknown")) == {}, "nobody looked at what it costs"


def test_the_doubt_of_a_latency_is_in_the_candidates_favour(make: Make) -> None:
    known = trained(make)
    assert stopping(known).floors(looked_at(make, "about as fast", 5.2, 800)) == {}
    wide = [
        replace(c, foreseen=costs(c.latency[0].median_ms * 1.5, c.artifact.size_bytes))
        if c.id != "baseline" and c.artifact
        else c
        for c in known
    ]
    assert stopping(known).floors(looked_at(make, "slower", 7.0, 800)) != {}
    assert stopping(wide).floors(looked_at(make, "slower", 7.0, 800)) == {}, "estimates were half as long again as the truth"


def test_less_is_better_where_the_metric_says_so(make: Make) -> None:
    known = [replace(make("baseline", quality=0.1, latency=10, size=1000), feasible=True)]
    for k in range(5):
        made = make(f"c{k}", quality=0.15, latency=5, size=500 + k, trial=k)
        known.append(replace(made, rungs=rungs(0.5, 0.3, 0.2 + 0.01 * k), feasible=True))
    floors = stopping(known, direction=Direction.MINIMIZE).floors(looked_at(make, "dear", 8.0, 800))
    assert floors["recovery#0 of 0@0.5"].needed > 0.15 + 0.09
    assert floors["recovery#0 of 0@0.25"].needed == pytest.approx(0.15 + 0.15)


def test_limits_on_quality_count_once_something_keeps_them(make: Make) -> None:
    cheap = looked_at(make, "cheap", 2.0, 100)
    assert stopping(trained(make, feasible=False), max_drop=0.1).floors(cheap) == {}
    floors = stopping(trained(make), max_drop=0.1).floors(cheap)
    assert floors["recovery#0 of 0@0.5"].needed == pytest.approx(0.8 - 0.07 - 0.0158, abs=1e-3)
    assert (
        stopping(trained(make), useful_drop=0.05).floors(cheap)["recovery#0 of 0@0.5"].needed
        > floors["recovery#0 of 0@0.5"].needed
    )


def test_what_is_beyond_a_limit_before_its_training_is_rejected(make: Make) -> None:
    known = trained(make)
    heavy, slow = looked_at(make, "heavy", 4.0, 900), looked_at(make, "slow", 9.0, 400)
    assert stopping(known).rejection(heavy) is None
    assert "violates the limit of 0.6 kB" in (stopping(known, max_size_bytes=600).rejection(heavy) or "")
    assert stopping(known, max_size_bytes=880).rejection(heavy) is None, "a file may come out a little smaller"
    assert "violates the limit of 6 ms" in (stopping(known, max_latency_ms=6.0).rejection(slow) or "")
    assert stopping(known, max_latency_ms=8.5).rejection(slow) is None, "within the doubt of its estimate"
    nothing_yet = [known[0]]
    assert stopping(nothing_yet, max_latency_ms=8.0).rejection(slow) is None, "its own band reaches down to 7.2 ms"
    assert stopping(nothing_yet, max_latency_ms=6.0).rejection(slow), "something satisfies the limit: the original is feasible"


def test_while_nothing_keeps_a_limit_the_nearest_is_still_built(make: Make) -> None:
    known = trained(make, feasible=False)
    near, far = looked_at(make, "near", 4.0, 400), looked_at(make, "far", 8.0, 400)
    assert stopping(known, max_latency_ms=2.0).rejection(near) is None
    assert stopping(known, max_latency_ms=2.0).rejection(far) is not None


def test_what_was_stopped_is_revived_when_trainings_turn_out_to_gain_more(make: Make) -> None:
    def ended(name: str, quality: float) -> CandidateResult:
        return replace(make(name, quality=quality, latency=5, size=500, trial=9), rungs=rungs(0.3, 0.5, 0.55), feasible=True)

    known = [*trained(make), ended("low", 0.7)]
    stopped = looked_at(make, "stopped", 8.0, 800, rungs=rungs(0.4, 0.55))
    assert stopping([*known, stopped]).resumable() is None
    revived = stopping([*known, stopped, ended("late", 0.84)]).resumable()
    assert revived is not None and revived.id == "stopped"
    assert stopping([*known, stopped, ended("late", 0.84)]).resumable(exclude={"stopped"}) is None


def test_sampler_learns_what_was_foreseen(make: Make) -> None:
    known = trained(make)
    stopped = looked_at(make, "stopped", 8.0, 800, rungs=rungs(0.4, 0.5))
    told = stopping(known).for_sampler(stopped)
    assert told is not None and told.quality is not None and told.artifact is not None
    assert told.quality.validation.value == pytest.approx(0.5 + 0.15)
    assert (told.latency[0].median_ms, told.artifact.size_bytes) == (8.0, 800)
    rejected = replace(looked_at(make, "rejected", 9.0, 400), state="rejected")
    assert stopping(known, max_latency_ms=6.0).for_sampler(rejected) is None
    constraints = stopping(known, max_latency_ms=6.0, max_drop=0.1).constraints(rejected)
    assert constraints["max_latency"] > 0 and "max_drop" not in constraints


def test_looking_first_must_pay(make: Make) -> None:
    known = trained(make)
    assert not stopping(known).proxy_pays()
    assert stopping([known[0]], max_size_bytes=10).proxy_pays()
    slow = [replace(c, seconds={"training": 30.0}) for c in known]
    assert stopping(slow).proxy_pays()
    looked = [replace(slow[1], seconds={"training": 30.0, "sketching": 4.0}), slow[0]]
    assert stopping(looked).proxy_pays()
    looked[0] = replace(slow[1], seconds={"training": 5.0, "sketching": 4.0})
    assert not stopping([looked[0], known[0]]).proxy_pays()


def test_what_was_stopped_for_its_quality_alone_teaches_by_its_constraint(make: Make) -> None:
    known = trained(make)
    blank = replace(make("stopped"), state="stopped", quality=None, artifact=None, latency=[], rungs=rungs(0.2))
    assert stopping(known, useful_drop=0.05).floors(blank)["recovery#0 of 0@0"].needed == pytest.approx(
        0.855 - 0.37 - 0.0158, abs=1e-3
    )
    assert stopping(known, useful_drop=0.05).for_sampler(blank) is None
    constraints = stopping(known, useful_drop=0.05).constraints(blank)
    assert constraints == {"useful_drop": pytest.approx(0.35 - 0.045)}, "the same names as those of complete candidates"
    complete = stopping(known, useful_drop=0.05, max_drop=0.1).constraints(known[1])
    assert complete.keys() == stopping(known, useful_drop=0.05, max_drop=0.1).constraints(blank).keys()
    assert stopping(known).constraints(replace(blank, state="failed")) == {}


def test_nothing_is_stopped_where_nobody_knows_what_trainings_gain(make: Make) -> None:
    known = trained(make)
    floors = stopping(known).floors(looked_at(make, "dear", 8.0, 800))
    floor = floors["recovery#0 of 0@0.5"]
    assert floor.lowest == pytest.approx(0.78)
    assert not floor.above(0.5, 1.0), "no training that stood so low has ended: it goes on, and shows it"
    assert floor.above(0.78, 1.0) is (floor.needed > 0.78)
    late = replace(make("late", quality=0.7, latency=5, size=500, trial=9), rungs=rungs(0.1, 0.2, 0.4), feasible=True)
    floor = stopping([*known, late]).floors(looked_at(make, "dear", 8.0, 800))["recovery#0 of 0@0.5"]
    assert floor.above(0.4, 1.0) and not floor.above(0.39, 1.0)
