"""What a run keeps for its report: when candidates were finished, which parameters mattered, what became of each layer."""

import dataclasses
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.api.resolve import profile_named
from orchestrator.api.search import preview
from orchestrator.building.protocol import OfferReply
from orchestrator.plugin import Choice, OnnxMethod
from orchestrator.plugin.registry import Registry
from orchestrator.report import formatting
from orchestrator.report.results import read_results, write_results
from orchestrator.report.run_diff import OPTIONS
from orchestrator.study.importance import LEAST_TRIALS, SHUFFLES, _evaluated, _trials, importance
from orchestrator.study.layers import Layers, layer_table
from orchestrator.study.publish import _options, _runtimes, _same_recipes, _with_phrases
from orchestrator.study.result import StudyResult
from orchestrator.study.run.event_log import finished_s
from orchestrator.study.search_space import SearchSpace
from orchestrator.values.direction import Direction
from orchestrator.values.results import (
    ArtifactResult,
    CandidateResult,
    Difference,
    LatencyResult,
    QualityResult,
    SplitQuality,
    StepResult,
)
from orchestrator.values.search import BudgetSpec, SearchOptions
from orchestrator.values.target import Target
from orchestrator.values.task import TaskSpec
from tests.conftest import Project

METHODS = Registry.discover().methods()


def convolutions(path: Path, widths: list[int], names: list[str], *, kernel: int = 3) -> Path:
    """A chain of convolutions with named weights on an 8x8 image."""
    nodes, weights = [], []
    for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
        weights.append(numpy_helper.from_array(np.ones((fan_out, fan_in, kernel, kernel), np.float32), names[k]))
        nodes.append(
            helper.make_node("Conv", [f"t{k}", names[k]], [f"t{k + 1}"], name=f"node_{k}_{path.stem}", pads=[kernel // 2] * 4)
        )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width, 8, 8])
        for name, width in (("t0", widths[0]), (f"t{len(nodes)}", widths[-1]))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def target() -> Target:
    profile = profile_named("raspberry-pi-4", Registry.discover())
    return Target(profile=profile, runtime="onnxruntime", threads=1, device="host", is_device=False)


def test_layers_are_known_by_the_names_of_their_weights(tmp_path: Path, target: Target) -> None:
    names = ["model.a.weight", "model.b.weight", "model.c.weight"]
    before = Layers(convolutions(tmp_path / "before.onnx", [3, 8, 8, 4], names), target, {})
    after = Layers(
        convolutions(tmp_path / "after.onnx", [3, 6, 4], [names[0], "model.c.weight_DequantizeLinear_Output"]), target, {}
    )
    table = layer_table(before, after, target)
    assert [(c.name, c.before is not None, c.after is not None) for c in table.layers] == [
        ("a", True, True), ("b", True, False), ("c", True, True),
    ]  # fmt: skip
    first = table.layers[0]
    assert first.before is not None
    assert first.after is not None
    assert (first.before.out_channels, first.after.out_channels) == (8, 6)
    assert first.before.macs == 3 * 8 * 9 * 64
    assert first.before.ms is not None
    assert first.after.ms is not None
    assert 0 < first.after.ms < first.before.ms
    assert table.fitted_on


def test_layers_without_names_are_paired_in_order_where_their_number_is_the_same(tmp_path: Path, target: Target) -> None:
    before = Layers(convolutions(tmp_path / "x.onnx", [3, 8, 4], ["val_1", "val_2"]), target, {})
    after = Layers(convolutions(tmp_path / "y.onnx", [3, 6, 4], ["val_7", "val_9"]), target, {})
    assert all(change.before and change.after for change in layer_table(before, after, target).layers)
    shorter = Layers(convolutions(tmp_path / "z.onnx", [3, 4], ["val_7"]), target, {})
    sides = [(change.before is None, change.after is None) for change in layer_table(before, shorter, target).layers]
    assert sides == [(False, True), (False, True), (True, False)], "who is who cannot be said"


def test_layers_with_names_of_their_own_are_never_paired_by_their_order(tmp_path: Path, target: Target) -> None:
    before = Layers(convolutions(tmp_path / "x.onnx", [3, 8, 4], ["a.weight", "b.weight"]), target, {})
    after = Layers(convolutions(tmp_path / "y.onnx", [3, 8, 4], ["a.weight", "c.weight"]), target, {})
    sides = {c.name: (c.before is not None, c.after is not None) for c in layer_table(before, after, target).layers}
    assert sides == {"a": (True, True), "b": (True, False), "c": (False, True)}


def test_number_of_the_exporter_is_no_name(tmp_path: Path, target: Target) -> None:
    """Both files have the same stem, so that their operators are called the same: one is gone, and nobody can say which."""
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    before = Layers(convolutions(tmp_path / "before" / "x.onnx", [3, 8, 8, 4], ["val_1", "val_2", "val_3"]), target, {})
    after = Layers(convolutions(tmp_path / "after" / "x.onnx", [3, 8, 4], ["val_1", "val_2"]), target, {})
    assert set(after.by_name) < set(before.by_name)
    assert not [c for c in layer_table(before, after, target).layers if c.before and c.after]


def test_layers_of_another_runtime_than_the_targets_first_have_no_times(tmp_path: Path, target: Target) -> None:
    path = convolutions(tmp_path / "x.onnx", [3, 8, 4], ["a.weight", "b.weight"])
    original = Layers(path, target, {}, "onnxruntime")
    table = layer_table(original, Layers(path, target, {}, "openvino"), target)
    assert all(side is not None and side.ms is None for c in table.layers for side in (c.before, c.after))
    assert (table.others_before_ms, table.others_after_ms, table.fitted_on) == (None, None, "")
    same = layer_table(original, Layers(path, target, {}, "onnxruntime"), target)
    assert all(side is not None and side.ms is not None for c in same.layers for side in (c.before, c.after))


def front_of(
    *members: tuple[str, str, float, float], runtime: str = "onnxruntime", others: tuple[str, ...] = ("twin",)
) -> StudyResult:
    """A search that found these: id, runtime, ratio to the original, half-width of its interval."""
    target = SimpleNamespace(runtime=runtime, alternatives=others)
    candidates = []
    for name, own, ratio, width in members:
        latency = LatencyResult(
            evidence="measured-on-target", device="host", runtime=own, threads=1, median_ms=ratio, low_ms=ratio, high_ms=ratio,
            ratio=Difference(value=ratio, low=ratio - width, high=ratio + width),
        )  # fmt: skip
        artifact = ArtifactResult(path=None, digest="", size_bytes=1, runtime=own)
        candidates.append(CandidateResult(id=name, state="complete", recipe=[], artifact=artifact, latency=[latency]))
    state = SimpleNamespace(request=SimpleNamespace(target=target))
    return cast("StudyResult", SimpleNamespace(state=state, front=candidates))


def test_runtime_wins_beyond_the_uncertainty_alone() -> None:
    close = front_of(("a", "twin", 0.50, 0.05), ("b", "onnxruntime", 0.52, 0.05), ("c", "onnxruntime", 0.9, 0.01))
    assert _runtimes(close) == [
        "the fastest of the front runs on twin (a) or on onnxruntime (b): their times cannot be distinguished; "
        "of the front run 2 on onnxruntime, 1 on twin"
    ]
    clear = front_of(("a", "twin", 0.50, 0.01), ("d", "twin", 0.505, 0.05), ("b", "onnxruntime", 0.6, 0.01))
    assert _runtimes(clear) == ["the fastest of the front runs on twin (a); of the front run 1 on onnxruntime, 2 on twin"]
    assert _runtimes(front_of(("a", "onnxruntime", 0.5, 0.1), others=())) == []


def test_runtimes_are_compared_by_the_recipes_that_ran_in_both() -> None:
    found = front_of(
        ("a", "onnxruntime", 0.50, 0.01), ("a2", "twin", 0.40, 0.01), ("b", "onnxruntime", 0.60, 0.05),
        ("b2", "twin", 0.61, 0.05), ("c", "twin", 0.3, 0.01),
    )  # fmt: skip
    step, there = (StepResult(method=name, version=1, parameters={}) for name in ("static-int8", "on-twin"))
    recipes = {"a": [], "a2": [there], "b": [step], "b2": [step, there], "c": [step, step, there]}
    candidates = [replace(c, recipe=recipes[c.id]) for c in found.front]
    searched = cast("StudyResult", SimpleNamespace(state=found.state, baseline=candidates[0], candidates=candidates[1:]))
    assert _same_recipes(searched) == [
        "3 candidates ran on twin; of 2 recipes that ran on onnxruntime too, 1 was faster on twin, 0 on onnxruntime, "
        "and 1 cannot be distinguished"
    ]
    alone = cast("StudyResult", SimpleNamespace(state=found.state, baseline=candidates[0], candidates=candidates[2:3]))
    assert _same_recipes(alone) == ["0 candidates ran on twin, none of them with a recipe that ran on onnxruntime too"]


def test_run_tells_what_it_was_asked_for_so_that_two_can_be_compared(project: Project) -> None:
    task = TaskSpec(model=str(project.folder / "model.onnx"), data=str(project.folder / "arrays.npz"))
    methods = ("static-int8", "dynamic-int8")
    plain = SearchOptions(target="raspberry-pi", task=task, budget=BudgetSpec(trials=1), methods=methods)
    other = dataclasses.replace(plain, methods=("static-int8",), without_methods=("dynamic-int8",))
    first, second = (_options(preview(options)[1]) for options in (plain, other))
    assert json.loads(json.dumps(second)) == second, "the same when it is read back"
    assert {key for key in first if first[key] != second[key]} == {"methods", "without"}
    assert first["methods"] == ["dynamic-int8", "static-int8"]
    assert first["offered"] == ["static-int8"], "the task has no matrix product for the other"
    assert set(first) | {"name", "sampler", "seed", "trials", "timeout_s", "epochs"} == set(OPTIONS), "all of it is compared"


def test_layer_tables_are_read_back_from_beside_the_files(tmp_path: Path, target: Target, digits_run: Any) -> None:
    before = Layers(convolutions(tmp_path / "before.onnx", [3, 8, 4], ["a.weight", "b.weight"]), target, {})
    table = layer_table(before, before, target)
    run = dataclasses.replace(digits_run, layers={digits_run.front[0]: table})
    write_results(run, tmp_path / "results.json")
    assert "layers" not in json.loads((tmp_path / "results.json").read_text())
    folder = tmp_path / "front" / digits_run.front[0]
    folder.mkdir(parents=True)
    (folder / "layers.json").write_text(json.dumps(dataclasses.asdict(table)))
    assert read_results(tmp_path) == run
    (folder / "layers.json").write_text("{")
    assert read_results(tmp_path).layers == {}, "a damaged one costs the report no more than its table"


@pytest.fixture
def digits_run() -> Any:
    """A run with a front whose files have paths."""
    from tests.report.conftest import make_digits_run

    return make_digits_run()


def test_finished_is_counted_without_the_pause_before_a_resume(tmp_path: Path) -> None:
    lines = [
        ("00:00:00", {"event": "starts"}),
        ("00:00:01", {"event": "phase", "what": "loading the model and the data"}),
        ("00:00:10", {"event": "baseline", "candidate": "baseline"}),
        ("00:00:30", {"event": "candidate", "candidate": "one"}),
        ("00:00:40", {"event": "trial", "id": "two"}),
        ("09:00:00", {"event": "starts"}),
        ("09:00:03", {"event": "phase", "what": "waiting for a board"}),
        ("09:00:05", {"event": "candidate", "candidate": "two"}),
    ]
    log = tmp_path / "log.jsonl"
    text = "".join(json.dumps({"time": f"2026-01-01T{time}.000+00:00", **event}) + "\n" for time, event in lines)
    log.write_text('{"time": "2026-01-0' + "\n" + text)
    assert finished_s(log) == {"baseline": 10.0, "one": 30.0, "two": 45.0}
    assert finished_s(tmp_path / "none") == {}


def space() -> SearchSpace:
    used = [METHODS[name] for name in ("block-removal", "static-int8")]
    offers = [OfferReply(method=m.name, version=m.version, family=m.family, parameters=m.parameters) for m in used]
    return SearchSpace(offers, METHODS)


def searched(number: int) -> list[CandidateResult]:
    """Random recipes whose latency is their number of removed blocks and whose quality is chance."""
    generator, drawn = np.random.default_rng(5), {}
    while len(drawn) < number:
        recipe = space().random(generator)
        drawn[recipe.digest] = recipe
    found = []
    for recipe in drawn.values():
        blocks = next((float(s.parameters["blocks"]) for s in recipe.steps if s.method == "block-removal"), 0.0)
        ms = 10 - blocks
        value = float(generator.random())
        found.append(
            CandidateResult(
                id=recipe.identifier,
                state="complete",
                recipe=[StepResult(method=s.method, version=s.version, parameters=dict(s.parameters)) for s in recipe.steps],
                artifact=ArtifactResult(path=None, digest="", size_bytes=1, runtime="onnxruntime"),
                quality=SplitQuality(validation=QualityResult(value=value, low=value, high=value, examples=10)),
                latency=[
                    LatencyResult(
                        evidence="estimated", device="x", runtime="onnxruntime", threads=1, median_ms=ms, low_ms=ms, high_ms=ms
                    )
                ],
            )
        )
    return found


def test_importance_finds_the_parameter_that_decides_and_chance_where_none_does() -> None:
    found = importance(searched(60), space(), Direction.MAXIMIZE)
    assert found.trials == 60
    assert found.best == 6
    first = found.latency[0]
    assert first.parameter == "block-removal.blocks"
    assert first.value > first.chance
    assert found.latency[0].value > 2 * max(p.value for p in found.latency if p.parameter.startswith("static-int8"))
    assert sum(p.value for p in found.quality) == pytest.approx(1.0)


def test_mark_of_chance_is_the_most_of_nineteen_deals() -> None:
    """So a parameter that does not matter passes it in one of twenty cases: its own figure is the largest of twenty alike."""
    assert 1 / (SHUFFLES + 1) == 0.05
    candidates = searched(30)
    found, trials = importance(candidates, space(), Direction.MAXIMIZE), _trials(candidates, space())
    generator, quality = np.random.default_rng(0), np.array([-trial.values[0] for trial in trials])
    dealt = [_evaluated(trials, generator.permutation(quality), found.best / len(trials)) for _ in range(SHUFFLES)]
    assert found.quality
    for parameter in found.quality:
        assert parameter.chance == max(other.get(parameter.parameter, 0.0) for other in dealt)


def test_drift_of_the_machine_does_not_make_a_parameter_important() -> None:
    """The times drift, the ratios to the original that was timed beside each do not."""
    steady = []
    for candidate in searched(40):
        ratio = candidate.latency[0].median_ms / 10
        own = Difference(value=ratio, low=ratio, high=ratio)
        latency = [dataclasses.replace(candidate.latency[0], evidence="measured-on-target", ratio=own)]
        steady.append(dataclasses.replace(candidate, latency=latency))
    drifted = [
        dataclasses.replace(
            c, latency=[dataclasses.replace(c.latency[0], median_ms=c.latency[0].median_ms * (4 if k % 2 else 1))]
        )
        for k, c in enumerate(steady)
    ]
    assert importance(drifted, space(), Direction.MAXIMIZE) == importance(steady, space(), Direction.MAXIMIZE)


def test_importance_of_few_trials_is_not_told() -> None:
    found = importance(searched(LEAST_TRIALS - 1), space(), Direction.MAXIMIZE)
    assert (found.trials, found.needed, found.quality, found.latency) == (LEAST_TRIALS - 1, LEAST_TRIALS, [], [])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_built_in_method_says_what_its_step_does(name: str) -> None:
    method = METHODS[name]
    for value in ("start", "gentlest", "cheapest"):
        values = {p.name.replace("*", "x"): getattr(p, value) for p in method.parameters}
        said = method.phrase(values)
        assert 5 < len(said) < 120
        assert not said.startswith(name), "a sentence, and no name with its parameters"


class Wordless(OnnxMethod):
    """A third party's method that has no words for its step."""

    name, version, family, summary = "wordless", 1, "other", "Does nothing."
    parameters = (
        Choice(name="way", help="a way", choices=("plain", "odd")),
        Choice(name="depth", help="a depth", choices=(1, 2)),
    )

    def transform(self, model: Path, parameters: Any, context: Any) -> Path:
        return model


class Failing(Wordless):
    """One that fails at it."""

    name = "failing"

    def phrase(self, parameters: Any) -> str:
        return f"{1 / 0}"


def test_method_without_words_is_told_by_its_name_and_what_is_not_at_its_default() -> None:
    steps = [
        StepResult(method=name, version=1, parameters={"way": "odd", "depth": 1}) for name in ("wordless", "failing", "gone")
    ]
    candidate = dataclasses.replace(searched(1)[0], recipe=steps)
    said = _with_phrases(candidate, {"wordless": Wordless(), "failing": Failing()})
    assert [step.phrase for step in said.recipe] == ["wordless (way odd)", "", ""]
    assert formatting.sentence(said.recipe) == "wordless (way odd); failing (way odd, depth 1); gone (way odd, depth 1)"
