"""Searches over a store: nothing is made twice, figures stay with their machine, and the store may go at any time."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.api.resolve import profile_named, resolve_target
from orchestrator.building.store import BYTES, Store
from orchestrator.measuring.model_info import ModelInfo
from orchestrator.measuring.scoring import RunValues
from orchestrator.plugin.registry import Registry
from orchestrator.study.candidates import measurement_cache as module
from orchestrator.study.candidates.measurement_cache import MeasurementCache
from orchestrator.values.evidence import Estimate
from orchestrator.values.results import LatencyResult, QualityResult, RunResult
from orchestrator_devices.host import HostDevice
from tests.conftest import Project

HOST = {"cpu": "one", "system": "Linux 6", "cores": 2, "memory_bytes": 1, "host": "here"}


class Evaluator:
    """Gives figures, and counts how often it is asked."""

    def __init__(self, device: Any, *, is_device: bool = False, disturbed: str | None = None) -> None:
        self.device, self.asked, self.threads, self._disturbed = device, 0, 1, disturbed
        registry = Registry.discover()
        self.target, _, _ = resolve_target(profile_named("raspberry-pi-4", registry), registry)
        self.target = replace(self.target, is_device=is_device)

    def settings(self, runtime: str | None = None) -> dict[str, Any]:
        return {"options": {}, "threads": self.threads, "device": self.target.device, "is_device": self.target.is_device}

    def briefly(self, model: ModelInfo, baseline: Path) -> LatencyResult:
        self.asked += 1
        return LatencyResult(
            evidence="measured-on-target" if self.target.is_device else "measured-on-host",
            device=self.target.device,
            runtime="onnxruntime",
            threads=1,
            median_ms=float(self.asked),
            low_ms=0.5,
            high_ms=99.0,
            disturbed=self._disturbed,
            note="as it came",
        )

    def run(self, model: ModelInfo, baseline: Path | None) -> RunValues:
        estimate = LatencyResult(
            evidence="estimated", device="raspberry-pi-4", runtime="onnxruntime", threads=4, median_ms=5, low_ms=4, high_ms=6
        )
        measured = self.briefly(model, Path())
        both = [measured, estimate] if self.target.is_device else [estimate, measured]
        return RunValues(latency=both, peak_memory_bytes=7, samples=(1.0, 2.0))


@pytest.fixture
def model(tmp_path: Path) -> ModelInfo:
    (tmp_path / "baseline.onnx").write_bytes(b"baseline")
    return ModelInfo(
        path=str(tmp_path / "model.onnx"),
        digest="d" * 64,
        size_bytes=1,
        compressed_bytes=1,
        macs=1,
        parameters=1,
        estimate=Estimate(value=3.0, low=2.0, high=4.0, unit="ms", model="a law", unknown=()),
        batch=8,
    )


@pytest.fixture
def figures(tmp_path: Path) -> Iterator[Callable[..., MeasurementCache]]:
    """`figures(task, judge)`: as a new run would have them, over one store."""

    def make(task: str = "data", judge: str | None = "accuracy") -> MeasurementCache:
        made = MeasurementCache(Store(tmp_path / "store", bound=BYTES, note=print), task)
        made.judge = judge
        return made

    with pytest.MonkeyPatch.context() as patch:  # a board describes itself, and the host is not asked
        patch.setattr(module, "_host", lambda: HOST)
        yield make


def test_times_come_from_the_store_and_say_so_with_the_estimate_of_now(
    figures: Callable[..., MeasurementCache], model: ModelInfo, tmp_path: Path
) -> None:
    evaluator: Any = Evaluator(HostDevice())
    first, before = figures().run(evaluator, model, tmp_path / "baseline.onnx")
    assert not before
    again, before = figures().run(evaluator, model, tmp_path / "baseline.onnx")
    assert (before, evaluator.asked) == (True, 1)
    assert [latency.evidence for latency in again.latency] == ["estimated", "measured-on-host"]
    assert again.latency[0].median_ms == 3.0, "computed from the graph now"
    note = again.latency[1].note or ""
    assert note.startswith("as it came; measured 20")
    assert note.endswith("UTC in an earlier run, on this machine")
    assert replace(again.latency[1], note=None) == replace(first.latency[1], note=None)
    assert (again.peak_memory_bytes, again.samples) == (7, (1.0, 2.0))


def test_times_of_another_machine_library_file_or_setting_are_not_taken(
    figures: Callable[..., MeasurementCache], model: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator: Any = Evaluator(HostDevice())
    baseline = tmp_path / "baseline.onnx"

    def asked(**changes: Any) -> bool:
        before = evaluator.asked
        figures(**changes).run(evaluator, model, baseline)
        return bool(evaluator.asked > before)

    assert asked()
    assert not asked()
    assert asked(task="other data")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_host", lambda: {**HOST, "cpu": "two"})
        assert asked()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_host", lambda: None)
        assert asked()
        assert asked(), "a machine that is not known keeps nothing"
    with monkeypatch.context() as patch:
        patch.setattr(module, "versions", lambda names: {"onnxruntime": "99"})
        assert asked()
    with monkeypatch.context() as patch:
        patch.setattr(module, "package_digest", lambda *names: "changed")
        assert asked()
    evaluator.threads = 2
    assert asked()
    evaluator.threads = 1
    baseline.write_bytes(b"another original")
    assert asked()
    baseline.write_bytes(b"baseline")
    assert not asked()


def test_disturbed_times_are_measured_again(figures: Callable[..., MeasurementCache], model: ModelInfo, tmp_path: Path) -> None:
    busy: Any = Evaluator(HostDevice(), disturbed="other work")
    for _ in range(2):
        figures().run(busy, model, None)
    assert busy.asked == 2
    for _ in range(2):
        figures().briefly(busy, model, tmp_path / "baseline.onnx")
    assert busy.asked == 4
    quiet: Any = Evaluator(HostDevice())
    first, second = (figures().briefly(quiet, model, tmp_path / "baseline.onnx") for _ in range(2))
    assert quiet.asked == 1
    assert first[1] == second[1], "how long it took then"


def test_board_keeps_figures_where_it_says_what_machine_it_is(figures: Callable[..., MeasurementCache], model: ModelInfo) -> None:
    class Board(HostDevice):
        scheme = "board"
        remote = True

        def __init__(self, described: dict[str, Any]) -> None:
            self.described = described

        def environment(self) -> dict[str, Any]:
            return self.described

    without_versions = {name: value for name, value in HOST.items() if name != "versions"}
    for said in ({"board": "one"}, {**without_versions, "board": "one"}):
        unsure: Any = Evaluator(Board(said), is_device=True)
        for _ in range(2):
            figures().run(unsure, model, None)
        assert unsure.asked == 2, "an update of what runs there would not be noticed"
    for name in ("pi@one", "pi@one", "pi@two"):
        sure: Any = Evaluator(Board({**HOST, "board": name, "load": [3.0]}), is_device=True)
        _, before = figures().run(sure, model, None)
        assert before == (sure.asked == 0)
    assert not before, "another board of the kind"


def test_quality_is_taken_for_the_same_outputs_and_metric(figures: Callable[..., MeasurementCache], model: ModelInfo) -> None:
    evaluator: Any = Evaluator(HostDevice())
    quality = QualityResult(value=0.5, low=0.4, high=0.6, examples=9)
    first = figures()
    first.keep_quality(first.score(evaluator, model, None, "validation"), quality)
    assert figures().score(evaluator, model, None, "validation").quality == quality
    assert figures().score(evaluator, model, None, "test").quality is None
    assert figures(judge="another").score(evaluator, model, None, "validation").quality is None
    unknown = figures(judge=None)
    unknown.keep_quality(unknown.score(evaluator, model, None, "validation"), quality)
    assert unknown.score(evaluator, model, None, "validation").quality is None
    assert figures().score(evaluator, replace(model, digest="e" * 64), None, "validation").quality is None


def searched(project: Project, output: Path, **more: Any) -> RunResult:
    data = {"model": str(project.folder / "model.onnx"), "data": str(project.folder / "arrays.npz")}
    return orchestrator.search(**{"target": "raspberry-pi", "trials": 3, **data, **more}, output=output)


def outcome(run: RunResult) -> list[Any]:
    return [
        (c.id, c.state, c.artifact.digest if c.artifact else None, c.quality.validation if c.quality else None, c.macs)
        for c in (run.baseline, *run.candidates)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_same_search_again_builds_and_scores_nothing(project: Project, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first, again = (searched(project, tmp_path / f"run{k}", store=store) for k in range(2))
    assert outcome(again) == outcome(first)
    assert first.search["reused"] == {"candidates": 0, "model": 0, "latency": 0, "quality": 0}
    assert (again.search["reused"]["model"], again.search["reused"]["quality"]) == (3, 3)
    assert all({"model", "quality"} <= set(c.reused) for c in again.candidates)
    assert any(note.startswith("3 of 3 models came from the store") for note in again.notes)
    events = [json.loads(line) for line in (tmp_path / "run1" / "log.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "candidate" for event in events) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_search_goes_on_when_its_store_is_deleted_or_damaged(project: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"

    def vandal(event: dict[str, Any]) -> None:
        if event["event"] == "candidate" and event["tried"] == 1:
            shutil.rmtree(store)
        elif event["event"] == "candidate":
            for path in store.rglob("*"):
                if path.is_file():
                    path.write_bytes(path.read_bytes()[:-1])

    first = orchestrator.search(
        target="raspberry-pi",
        trials=3,
        model=str(project.folder / "model.onnx"),
        data=str(project.folder / "arrays.npz"),
        store=str(store),
        output=tmp_path / "run",
        observer=vandal,
    )
    assert [c.state for c in first.candidates] == ["complete"] * 3
    again = searched(project, tmp_path / "again", store=str(store))
    assert outcome(again) == outcome(first)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_nothing_is_kept_where_the_user_wants_no_store(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_STORE", str(tmp_path / "store"))
    run = searched(project, tmp_path / "run", store="none", trials=1)
    assert len(run.candidates) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_timing")
def test_same_search_again_trains_nothing(project: Project, tmp_path: Path) -> None:
    torch_task = {"model": project.ref("model:net"), "data": project.ref("data:splits"), "trials": 9}
    store = str(tmp_path / "store")
    first, again = (searched(project, tmp_path / f"run{k}", store=store, **torch_task) for k in range(2))
    assert outcome(again) == outcome(first)
    assert again.search["reused"]["model"] == sum(c.state == "complete" for c in again.candidates)
    assert sum(c.seconds.get("training", 0.0) for c in first.candidates) > 0
    other = searched(project, tmp_path / "run2", store=store, **{**torch_task, "seed": 1})
    assert other.search["reused"]["model"] == 0, "another seed, another network"
