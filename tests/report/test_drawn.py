"""What the report draws and counts: hypervolume, the course of the search, layers, importance, estimates beside other figures."""

import dataclasses
import random
import re

import moocore
import numpy as np
import pytest

from orchestrator.report.changes import MOST_ROWS, changes
from orchestrator.report.hypervolume import box_of, course, hypervolume, objectives, unit_of
from orchestrator.values.layers import Layer, LayerChange
from orchestrator.values.results import Importance, RunResult
from orchestrator_reports.charts import agreement_of, course_of
from orchestrator_reports.html import render_html
from orchestrator_reports.svg import Scale, label
from tests.report.conftest import scaled


def test_hypervolume_is_that_of_a_reference_implementation() -> None:
    generator = random.Random(1)
    for number in (1, 2, 7, 40):
        points = [(generator.random() * 1.2, generator.random() * 1.2, generator.random() * 1.2) for _ in range(number)]
        assert hypervolume(points) == pytest.approx(moocore.hypervolume(np.array(points), ref=[1.0, 1.0, 1.0]))
    assert hypervolume([]) == 0.0
    assert hypervolume([(0.0, 0.0, 0.0)]) == 1.0


def test_box_does_not_depend_on_the_order_and_holds_the_front(full_run: RunResult) -> None:
    box = box_of([full_run])
    assert box is not None
    assert box == box_of([dataclasses.replace(full_run, front=full_run.front[::-1])])
    assert box.reference[0] < 0.973 < 0.986 == box.ideal[0]
    assert box.ideal[1] == 0.71
    assert box.reference[1] > 3.42
    wider = box_of([full_run, dataclasses.replace(full_run, front=[*full_run.front, "0d8852b1fa"])])
    assert wider is not None
    assert wider.ideal[1] == 0.448


def test_axis_on_which_all_are_alike_takes_nothing_from_the_others(full_run: RunResult) -> None:
    def alike(run: RunResult) -> RunResult:
        entries = [
            dataclasses.replace(c, artifact=dataclasses.replace(c.artifact, size_bytes=100)) if c.artifact else c
            for c in (run.baseline, *run.candidates)
        ]
        return dataclasses.replace(run, baseline=entries[0], candidates=entries[1:])

    box = box_of([alike(full_run)])
    assert box is not None
    assert box.place(box.ideal) == (0.0, 0.0, 0.0)
    assert box.place((*box.ideal[:2], 99.0))[2] == 0.0, "better than all of the front"
    assert box.place((*box.ideal[:2], 101.0))[2] == 1.0
    assert 0 < course(alike(full_run), box)[-1].volume < 1


def test_run_whose_candidates_all_failed_has_no_hypervolume_and_says_why(failed_run: RunResult) -> None:
    assert box_of([failed_run]) is None
    assert course_of(failed_run) is None
    why = "There is no hypervolume to follow: the front holds no candidate whose values differ from the original&#39;s."
    assert why in render_html(failed_run)


def test_drift_of_the_machine_is_no_gain(host_run: RunResult) -> None:
    """The candidate was timed in a slower hour, the original beside it: their ratio says what the recipe does."""
    drifted = scaled(host_run, 0.5, only=(host_run.front[0],))
    box, other = box_of([host_run]), box_of([drifted])
    assert box is not None
    assert box == other
    assert course(host_run, box) == course(drifted, box)
    own = objectives(host_run, host_run.baseline, box.unit_ms)
    assert own is not None
    assert own[1] == 0.412


def test_computed_times_count_as_they_are(full_run: RunResult) -> None:
    assert unit_of(full_run) is None
    faster = scaled(full_run, 0.1, only=(full_run.front[0],))
    point = objectives(faster, faster.candidates[0], None)
    assert point is not None
    assert point[1] == pytest.approx(0.161)


def test_course_rises_and_leaves_out_what_breaks_a_limit(full_run: RunResult) -> None:
    box = box_of([full_run])
    assert box is not None
    moments = course(full_run, box)
    volumes = [moment.volume for moment in moments]
    assert volumes == sorted(volumes)
    assert [moment.candidates for moment in moments] == list(range(12))
    broken = next(k for k, c in enumerate(full_run.candidates, 1) if c.feasible is False)
    assert volumes[broken] == volumes[broken - 1]
    found = course_of(full_run)
    assert found is not None
    assert found.last == volumes[-1] > 0
    assert volumes[found.ninety - 1] < 0.9 * volumes[-1] <= volumes[found.ninety]
    assert len(found.drawings) == 2, "over candidates and over time"


def test_run_that_knows_no_times_has_its_course_over_candidates_alone(digits_run: RunResult, empty_run: RunResult) -> None:
    found = course_of(digits_run)
    assert found is not None
    assert len(found.drawings) == 1
    assert course_of(empty_run) is None


def test_layers_say_what_became_of_each(full_run: RunResult) -> None:
    found = changes(full_run.layers["5be27f6a10"])
    assert [row.state for row in found.rows] == ["changed", "changed", "gone", "same"]
    assert found.rows[1].channels == ("24 → 24", "24 → 8")
    assert found.rows[1].precision == ("float32", "INT8")
    assert found.rows[2].ms == ("0.15", "")
    assert found.rows[1].bars == pytest.approx((100.0, 100 * 0.04 / 0.15))
    assert found.summary == "3 of 4 layers, 1 with fewer outputs, 2 in INT8, ~ 0.100 ms instead of 0.340 ms"


def test_large_network_has_its_weightiest_layers_listed_and_the_rest_added_up(full_run: RunResult) -> None:
    table = full_run.layers["5be27f6a10"]
    many = tuple(
        LayerChange(name=f"l{k}", before=Layer(operator="Conv", number_format="float32", ms=float(k)))
        for k in range(MOST_ROWS + 3)
    )
    found = changes(dataclasses.replace(table, layers=many))
    assert [row.name for row in found.rows] == [f"l{k}" for k in range(3, MOST_ROWS + 3)], "in the order of the graph"
    assert found.folded == "3 smaller layers are not listed: 3.00 ms before, 0 ms after"


def test_importance_says_what_it_rests_on_and_what_chance_gives(full_run: RunResult) -> None:
    page = re.sub(r"\s+", " ", render_html(full_run))
    assert "among the best 5 of 40" in page
    assert page.count('<tr class="chance">') == 1
    assert "so of 3 looked at here some 0.1 do by chance alone" in page
    few = dataclasses.replace(full_run, importance=Importance(trials=7, needed=20))
    assert "7 complete candidates are too few to say which parameters mattered: it takes 20." in render_html(few)


def test_estimates_are_held_against_the_target_where_it_was_simulated_else_this_host(full_run: RunResult) -> None:
    beside = agreement_of(full_run)
    assert beside is not None
    assert not beside.same_target
    assert beside.against == "measured on this host"
    simulated = [
        dataclasses.replace(
            c, latency=[dataclasses.replace(c.latency[0], evidence="simulated", median_ms=2 * c.latency[0].median_ms), *c.latency]
        )
        if c.latency
        else c
        for c in full_run.candidates
    ]
    first = full_run.baseline.latency[0]
    latency = [dataclasses.replace(first, evidence="simulated"), *full_run.baseline.latency]
    base = dataclasses.replace(full_run.baseline, latency=latency)
    found = agreement_of(dataclasses.replace(full_run, candidates=simulated, baseline=base))
    assert found is not None
    assert found.same_target
    assert found.against == "simulated on the target"
    assert found.ratio == pytest.approx(2.0)
    assert found.number == 9


def test_without_three_pairs_there_is_nothing_to_compare(host_run: RunResult) -> None:
    assert agreement_of(host_run) is None


def test_page_stays_small_with_many_candidates(full_run: RunResult) -> None:
    many = [dataclasses.replace(full_run.candidates[k % 8], id=f"c{k:09d}") for k in range(200)]
    run = dataclasses.replace(full_run, candidates=[*full_run.candidates, *many])
    assert len(render_html(full_run)) < 200_000
    assert len(render_html(run)) < 1_000_000


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(low=0.0, high=1.0, start=0, end=100), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Scale(low=0.11, high=3.6, start=0, end=100, log=True), ["0.2", "0.5", "1", "2"]),
        (Scale(low=94.1, high=99.2, start=0, end=100), ["95", "96", "97", "98", "99"]),
        (Scale(low=1000, high=52000, start=0, end=100, log=True), ["1,000", "2,000", "5,000", "10,000", "20,000", "50,000"]),
    ],
)
def test_ticks_are_round_values(scale: Scale, expected: list[str]) -> None:
    ticks = scale.ticks(6)
    assert [label(tick, ticks) for tick in ticks] == expected
    assert all(0 <= scale.at(tick) <= 100 for tick in ticks)
