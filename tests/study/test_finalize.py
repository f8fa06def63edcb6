"""The end of a search: near misses, the front measured again side by side, and what follows."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import EnvironmentFailure, JobFailed
from orchestrator.measuring.scoring import Together
from orchestrator.study.budget import Budget
from orchestrator.study.candidates.archive import Archive
from orchestrator.study.candidates.tally import Tally
from orchestrator.study.finalize import Outcome, as_searched, remeasure, score_on_simulated_cpu, score_on_test
from orchestrator.study.pareto.front import MOST_REMEASURED, ParetoFront
from orchestrator.study.remeasurement import ALONE, DURING, Remeasurement, allowance_s, select
from orchestrator.study.run.directory import RunDirectory
from orchestrator.values.direction import Direction
from orchestrator.values.results import CandidateResult, Difference, LatencyResult
from orchestrator.values.search import BudgetSpec, SearchOptions
from orchestrator.values.target import Limits
from tests.study.conftest import Make


class Request:
    """The parts of a search request that judging candidates needs."""

    limits = Limits()
    options = SearchOptions()
    useful_drop = None


class Task:
    """The parts of a task that judging candidates needs."""

    direction, metric = Direction.MAXIMIZE, "accuracy"


Timed = Callable[..., CandidateResult]


@pytest.fixture
def timed(make: Make, tmp_path: Path) -> Timed:
    """`timed("a", 0.9, width=0.02)`: measured on the target, with a file in the run directory."""

    def candidate(name: str, value: float = 1.0, *, width: float = 0.02, **more: Any) -> CandidateResult:
        ratio = None if name == "baseline" else (value, value - width, value + width)
        found = make(name, evidence="measured-on-target", latency=10 * value, ratio=ratio, **more)
        path = tmp_path / f"{name}.onnx"
        path.touch()
        assert found.artifact is not None
        return dataclasses.replace(found, artifact=dataclasses.replace(found.artifact, path=path.name))

    return candidate


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Archive]:
    def filled(*candidates: CandidateResult, limits: Limits = Request.limits) -> Archive:
        run = RunDirectory(tmp_path)
        run.candidates.mkdir(parents=True, exist_ok=True)
        request = Request()
        request.limits, request.options = limits, SearchOptions(limits=limits)
        found = Archive(run, request, Task())  # type: ignore[arg-type]
        for candidate in candidates:
            found.keep(candidate)
        return found

    return filled


def figure(value: float, width: float = 0.005) -> LatencyResult:
    return LatencyResult(
        evidence="measured-on-target",
        device="board",
        runtime="onnxruntime",
        threads=1,
        median_ms=10 * value,
        low_ms=9 * value,
        high_ms=11 * value,
        ratio=Difference(value=value, low=value - width, high=value + width),
    )


ORIGINAL = dataclasses.replace(figure(1.0), ratio=None)


class Bench:
    """In the place of a fleet: its evaluator answers with given figures."""

    def __init__(self, figures: Mapping[str, LatencyResult | JobFailed]) -> None:
        self.figures, self.asked = figures, list[list[str]]()
        self.seconds: float | None = None

    def run_anywhere(self, call: Callable[[Any], Any]) -> Any:
        return call(self)

    def together(self, models: Mapping[str, Path], baseline: Path, *, seconds: float | None = None, **_: Any) -> Together:
        assert baseline.name == "baseline.onnx"
        assert all(path.is_file() for path in models.values())
        self.asked.append(list(models))
        self.seconds = seconds
        figures = {name: self.figures[name] for name in (*models, "baseline")}
        samples = {name: (1.0, 2.0) for name, figure in figures.items() if not isinstance(figure, JobFailed)}
        return Together(figures=figures, samples=samples)


def again(archive: Archive, bench: Bench, tmp_path: Path, *, timeout_s: float | None = None) -> Outcome:
    told: list[str] = []
    run = RunDirectory(tmp_path)
    found = remeasure(archive, run, bench, timeout_s=timeout_s, report=told.append)  # type: ignore[arg-type]
    assert told == ([f"measuring the front again, side by side ({len(bench.asked[-1])} models)"] if bench.asked else [])
    return found


def test_near_misses_would_be_on_the_front_at_the_low_end_of_their_interval(
    timed: Timed, archive: Callable[..., Archive]
) -> None:
    known = [
        timed("baseline", quality=0.95),
        timed("best", 0.80, trial=1, size=900),
        timed("near", 0.815, trial=2, quality=0.89),
        timed("nearest", 0.81, trial=3),
        timed("worse", 0.81, trial=4, size=950, quality=0.8, width=0.001),
        timed("far", 0.90, trial=5),
    ]
    front = archive(*known).front
    assert [c.id for c in front.front()] == ["best", "baseline"]
    assert [c.id for c in front.near_misses()] == ["nearest", "near"]
    estimated = {c.id: dataclasses.replace(c, latency=[dataclasses.replace(c.latency[0], evidence="estimated")]) for c in known}
    assert ParetoFront(estimated, Request(), Task()).near_misses() == []  # type: ignore[arg-type]


def test_files_of_near_misses_are_kept_and_those_of_others_are_not(timed: Timed, archive: Callable[..., Archive]) -> None:
    near, far = timed("near", 0.81, trial=2), timed("far", 0.95, trial=3)
    found = archive(timed("baseline", quality=0.95), timed("best", 0.8, trial=1, size=900), near, far)
    assert {c.id for c in found.known.values() if c.artifact and c.artifact.path} == {"baseline", "best", "near"}


def test_front_first_then_near_misses_and_twelve_at_most_are_remeasure(timed: Timed) -> None:
    front = [timed("baseline"), *(timed(f"front{k}", 0.5) for k in range(8))]
    near = [timed(f"near{k}", 0.5) for k in range(8)]
    names = list(select([*front, *near], "front5"))
    assert names[:3] == ["front5", "front0", "front1"]
    assert names[8:] == ["near0", "near1", "near2", "near3"]
    assert len(names) == MOST_REMEASURED


def test_front_and_recommendation_come_from_the_new_figures(
    timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    found = archive(
        timed("baseline", quality=0.95),
        timed("lucky", 0.80, trial=1, quality=0.901),
        timed("near", 0.81, trial=2, size=1100),
        timed("far", 0.95, trial=3),
        limits=Limits(max_latency_ms=8.2),
    )
    assert found.front.recommendation().id == "lucky"
    bench = Bench({"baseline": ORIGINAL, "lucky": figure(0.85), "near": figure(0.80)})
    outcome = again(found, bench, tmp_path)
    assert bench.asked == [["lucky", "near"]]
    assert [c.id for c in outcome.front] == ["near", "lucky", "baseline"]
    assert outcome.recommendation.id == "near"
    assert outcome.notes == [
        "near came onto the front when measured again: 0.800 of the original's time, and 0.810 during the search",
    ]
    first, second = outcome.known["near"].latency
    assert (first.median_ms, first.note, second.median_ms, second.note) == (8.0, None, pytest.approx(8.1), DURING)
    assert [latency.note for latency in outcome.known["baseline"].latency] == [None, ALONE]
    assert len(outcome.known["far"].latency) == 1
    assert outcome.seconds["measuring"] >= 0
    assert len(found.known["near"].latency) == 1, "the archive goes on with the figures of the search"


def test_candidate_leaves_the_front_with_a_note_when_it_was_only_lucky(
    timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    found = archive(timed("baseline", quality=0.95), timed("lucky", 0.80, trial=1, quality=0.88), timed("sure", 0.81, trial=2))
    outcome = again(found, Bench({"baseline": ORIGINAL, "lucky": figure(0.85), "sure": figure(0.80)}), tmp_path)
    assert [c.id for c in outcome.front] == ["sure", "baseline"]
    assert outcome.notes == [
        "lucky left the front when measured again: 0.850 of the original's time, and 0.800 during the search"
    ]


def test_finished_measurement_is_not_repeated_and_another_front_is_measured_anew(
    timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    found = archive(timed("baseline", quality=0.95), timed("one", 0.80, trial=1))
    bench = Bench({"baseline": ORIGINAL, "one": figure(0.81), "two": figure(0.6)})
    first = again(found, bench, tmp_path)
    resumed = Bench({})
    assert again(archive(), resumed, tmp_path) == first
    assert resumed.asked == []
    found.keep(timed("two", 0.6, trial=2, quality=0.8))
    outcome = again(found, bench, tmp_path)
    assert bench.asked[1] == ["two", "one"] or bench.asked[1] == ["one", "two"]
    assert [c.id for c in outcome.front] == ["two", "one", "baseline"]


def test_what_fails_when_measured_again_leaves_the_front_with_a_note(
    timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    found = archive(timed("baseline", quality=0.95), timed("one", 0.8, trial=1), timed("two", 0.6, trial=2, quality=0.8))
    outcome = again(found, Bench({"baseline": ORIGINAL, "one": JobFailed("crash", "it died"), "two": figure(0.6)}), tmp_path)
    assert [c.id for c in outcome.front] == ["two", "baseline"]
    assert outcome.notes == ["one could not be measured again, and is not on the front: it died"]


def test_front_stays_with_a_note_when_the_original_cannot_be_remeasure(
    timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    found = archive(timed("baseline", quality=0.95), timed("one", 0.8, trial=1))
    outcome = again(found, Bench({"baseline": JobFailed("crash", "it died"), "one": figure(0.8)}), tmp_path)
    assert [c.id for c in outcome.front] == ["one", "baseline"]
    assert outcome.notes == ["the front could not be measured again: it died"]


def test_rest_of_a_front_that_is_too_long_keeps_its_place(timed: Timed, archive: Callable[..., Archive], tmp_path: Path) -> None:
    many = [timed(f"c{k:02}", 0.9 - k / 50, trial=k, quality=0.9 - k / 100, width=0.001) for k in range(14)]
    found = archive(timed("baseline", quality=0.95), *many)
    figures = {c.id: figure(c.latency[0].median_ms / 10, 0.001) for c in many}
    outcome = again(found, Bench({"baseline": ORIGINAL, **figures}), tmp_path, timeout_s=90)
    assert len(outcome.front) == 15
    assert sum(len(c.latency) == 2 for c in outcome.front) == MOST_REMEASURED + 1
    assert any("were not measured again" in note for note in outcome.notes)


def test_gain_within_the_new_figures_noise_is_none(timed: Timed) -> None:
    baseline, candidate = timed("baseline"), timed("a", 0.9)
    found = Remeasurement(timed={"a": "a"}, latencies={"baseline": ORIGINAL, "a": figure(0.999)})
    assert found.applied(dataclasses.replace(candidate, gains=True), baseline).gains is False


def test_time_is_set_aside_for_the_measurement_at_the_end(timed: Timed, make: Make) -> None:
    assert allowance_s(3, None) == pytest.approx(10.0)
    assert allowance_s(12, 600) == pytest.approx(32.5)
    assert allowance_s(12, 30) == pytest.approx(10.0)
    budget = Budget(BudgetSpec(timeout_s=300), started=0, spent_before=0)
    on_target = [timed("baseline"), timed("a", 0.9)]
    estimated = [make("baseline"), make("a", latency=9)]
    reserved = (budget.left_for_trials(Tally(estimated)) or 0) - (budget.left_for_trials(Tally(on_target)) or 0)
    assert reserved == pytest.approx(allowance_s(2, 300), abs=0.1)


def test_candidates_on_boards_count_as_tried_and_their_time_is_set_aside(timed: Timed) -> None:
    known = {
        c.id: dataclasses.replace(c, seconds={"measuring": 4.0, "scoring": 1.0}) for c in (timed("baseline"), timed("a", 0.9))
    }
    budget = Budget(BudgetSpec(trials=3, timeout_s=300), started=0, spent_before=0)
    reserved = (budget.left_for_trials(Tally(known.values())) or 0) - (budget.left_for_trials(Tally(known.values()), 2) or 0)
    assert reserved == pytest.approx(4.0 + 2 * 1.0, abs=0.1)
    trials = Budget(BudgetSpec(trials=3), started=0, spent_before=0)
    assert trials.ended(Tally(known.values()), 1) is None
    assert trials.ended(Tally(known.values()), 2) == "the budget of 3 trials is used up"


def test_a_tally_that_is_kept_up_is_that_of_the_candidates_that_are_there(timed: Timed, make: Make) -> None:
    gone = dataclasses.replace(timed("gone", 0.8), seconds={"measuring": 4.0, "scoring": 1.0})
    stay = [timed("baseline"), dataclasses.replace(make("stopped"), state="stopped")]
    tally = Tally([gone, *stay])
    tally.add(gone, -1)
    assert {**vars(tally), "evidence": +tally.evidence} == vars(Tally(stay))


def test_samples_of_both_measurements_lie_beside_each_other(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_samples("a", ms=(1.0, 2.0))
    run.write_samples("a", again_ms=(3.0,))
    run.write_samples("b", ms=())
    with np.load(run.samples / "a.npz") as samples:
        assert {name: samples[name].tolist() for name in samples} == {"ms": [1.0, 2.0], "again_ms": [3.0]}
    assert not (run.samples / "b.npz").exists()


@pytest.mark.parametrize("score", [score_on_test, score_on_simulated_cpu])
def test_a_full_disk_at_the_end_is_no_models_failure(score: Any, timed: Timed, archive: Callable[..., Archive]) -> None:
    class Full:
        simulates = True

        def score_test(self, *_: Any, **__: Any) -> Any:
            raise JobFailed("surroundings", "No space left on device")

        score_simulated = score_test

    known = archive(timed("baseline", 1.0), timed("a", 0.5))
    more = {"seconds": 100.0} if score is score_on_simulated_cpu else {}
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        score(as_searched(known), known, Full(), timeout_s=10.0, report=lambda _: None, **more)


@pytest.mark.parametrize("which", ["a", "baseline"])
def test_a_full_disk_takes_no_model_off_the_front(
    which: str, timed: Timed, archive: Callable[..., Archive], tmp_path: Path
) -> None:
    known = archive(timed("baseline", 1.0), timed("a", 0.5, quality=0.92), timed("b", 0.4))
    figures = {"baseline": ORIGINAL, "a": figure(0.5), "b": figure(0.4)}
    bench = Bench({**figures, which: JobFailed("surroundings", "No space left on device")})
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        remeasure(known, RunDirectory(tmp_path), bench, timeout_s=None, report=lambda _: None)  # type: ignore[arg-type]
    assert not RunDirectory(tmp_path).remeasurement.exists()
