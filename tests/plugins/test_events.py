"""What followers write is read back with their own tools."""

import builtins
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugin.registry import Registry
from orchestrator.plugin.testing import sample_run, sample_start
from orchestrator_events import MlflowEvents, TensorBoardEvents


def followed(ended: str = "the budget is used up") -> Registry:
    """A registry with the plugins, which have followed the sample search from its start to its end."""
    registry = Registry()
    registry.register(TensorBoardEvents, "tensorboard")
    registry.register(MlflowEvents, "mlflow")
    registry.search_started(sample_start())
    for candidate in sample_run().candidates:
        registry.trial_finished(candidate)
    registry.search_ended(replace(sample_run(), search={"ended": ended}))
    return registry


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORCHESTRATE_TENSORBOARD", "ORCHESTRATE_MLFLOW", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert followed().notes == []
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_every_candidates_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("ORCHESTRATE_TENSORBOARD", str(tmp_path))
    assert followed().notes == []
    (folder,) = tmp_path.iterdir()
    assert folder.name == "one"
    found = EventAccumulator(str(folder)).Reload()
    assert [(e.step, round(e.value, 3)) for e in found.Scalars("candidate/latency_ms")] == [(0, 3.0), (1, 1.5)]
    assert [e.value for e in found.Scalars("candidate/complete")] == [1.0, 1.0, 0.0, 0.0]
    assert [e.value for e in found.Scalars("candidate/size_bytes")] == [400_000, 110_000]
    assert [e.value for e in found.Scalars("front/size")] == [1.0]
    words = [e.tensor_proto.string_val[0].decode() for e in found.Tensors("candidate/recipe")]
    assert words[1] == "c0ffee (complete): static-int8"


@pytest.mark.parametrize("known", [0, 2])
def test_tensorboard_has_the_original_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int) -> None:
    """A search that was killed before any candidate was known may not have come to write it."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("ORCHESTRATE_TENSORBOARD", str(tmp_path))
    registry = Registry()
    registry.register(TensorBoardEvents, "tensorboard")
    registry.search_started(replace(sample_start(), resumed=True, known=known))
    registry.search_ended(sample_run())
    (folder,) = tmp_path.iterdir()
    found = EventAccumulator(str(folder)).Reload()
    assert ("candidate/complete" in found.Tags()["scalars"]) == (known == 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in what MLflow does
def test_mlflow_has_a_nested_run_for_every_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.setenv("ORCHESTRATE_MLFLOW", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert followed().notes == []
    client: Any = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("orchestrator")
    runs = {run.data.tags.get("orchestrator.id", "search"): run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"search", "baseline", "c0ffee", "fa11ed", "4e1ec7"}
    search = runs["search"]
    assert search.info.status == "FINISHED" and search.data.tags["orchestrator.recommended"] == "c0ffee"
    assert search.data.params["methods"] == "static-int8" and search.data.metrics["front_size"] == 1.0
    best = runs["c0ffee"]
    assert best.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert best.data.params["static-int8.scheme"] == "u8s8" and best.data.metrics["latency_ms"] == 1.5
    assert runs["fa11ed"].info.status == "FAILED" and "would keep" in runs["fa11ed"].data.tags["orchestrator.failure"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in what MLflow does
def test_mlflow_says_that_a_search_was_broken_off_and_a_dead_server_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")  # so that what is set below goes again
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    uri = f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.setenv("ORCHESTRATE_MLFLOW", uri)
    assert followed("it was interrupted").notes == []
    client: Any = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("orchestrator")
    runs = {run.data.tags.get("orchestrator.id", "search"): run for run in client.search_runs([experiment.experiment_id])}
    assert runs["search"].info.status == "KILLED" and runs["c0ffee"].info.status == "FINISHED"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3", "what the user has set holds"


@pytest.mark.parametrize("tool", ["tensorboard", "mlflow"])
def test_tool_that_is_missing_is_a_note_with_the_command(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name.partition(".")[0] == tool:
            raise ImportError(name)
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv(f"ORCHESTRATE_{tool.upper()}", str(tmp_path))
    (note,) = followed().notes
    assert f"{tool} is not installed: pip install {tool}" in note


def test_tool_that_is_missing_does_not_silence_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "mlflow":
            raise ImportError(name)
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv("ORCHESTRATE_MLFLOW", "1")
    monkeypatch.setenv("ORCHESTRATE_TENSORBOARD", str(tmp_path))
    (note,) = followed().notes
    assert note.startswith("plugin 'mlflow' gets no further events")
    (folder,) = tmp_path.iterdir()
    found = EventAccumulator(str(folder))
    found.Reload()
    assert [e.value for e in found.Scalars("front/size")] == [1.0], "closed at the end"
