"""`orchestrate dashboard`: the real optuna-dashboard on a run's study, asked over HTTP."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import orchestrator.api.dashboard
from orchestrator.api.resolve import plan
from orchestrator.building.protocol import OfferReply
from orchestrator.errors import EnvironmentFailure, InputError
from orchestrator.plugin.registry import Registry
from orchestrator.study.run.directory import RunDirectory
from orchestrator.study.run.request import RunState
from orchestrator.values.direction import Direction
from orchestrator.values.search import BudgetSpec, SearchOptions
from orchestrator.values.task import TaskDescription, TaskSpec

Make = Callable[[str | None], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run directory with a study of three trials, in its own journal or in a storage."""

    def made(storage: str | None) -> Path:
        path = tmp_path / "run"
        run = RunDirectory.create(path)
        request, _, _ = plan(SearchOptions(target="host", budget=BudgetSpec(trials=3), storage=storage), Registry.discover())
        task = TaskDescription(
            spec=TaskSpec(name="digits", model="m", data="d"), kind="torch", inputs=(), outputs=(), classes=10, metric="accuracy",
            direction=Direction.MAXIMIZE, examples={}, labelled=(), digest="", weights_digest="", data_digest="",
        )  # fmt: skip
        offers: tuple[OfferReply, ...] = ()
        state = RunState(
            request=request, task=task, study="run-1", offers=offers, epochs=(1, 1), notes=(), started="", seconds_preparing=0
        )
        run.write_state(state)
        backend = JournalStorage(JournalFileBackend(str(run.study))) if storage is None else storage
        study = optuna.create_study(study_name="run-1", storage=backend, directions=["maximize", "minimize"])
        study.optimize(lambda trial: (trial.suggest_float("ratio", 0, 1), 1.0), n_trials=3)
        return path

    return made


@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_study_is_served_until_ctrl_c(own: bool, make: Make, tmp_path: Path) -> None:
    path = make(None if own else f"sqlite:///{tmp_path}/studies.db")
    arguments = [sys.executable, "-m", "orchestrator", "dashboard", str(path), "--port", "0"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            while line and "the study is at" not in line:
                line = process.stderr.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+)(/dashboard/studies/\d+)", line)
            assert found is not None
            with urllib.request.urlopen(found.group(1) + found.group(2), timeout=30) as answer:  # noqa: S310
                assert b"<html" in answer.read()
            with urllib.request.urlopen(found.group(1) + "/api/studies", timeout=30) as answer:  # noqa: S310
                assert [entry["study_name"] for entry in json.load(answer)["study_summaries"]] == ["run-1"]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()  # for whatever failed above: leaving the block waits for its end


def test_without_the_package_one_line_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator.api.dashboard, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'model-orchestrator\[dashboard\]'"):
        orchestrator.api.dashboard.serve(Path("run"), host="127.0.0.1", port=0, ready=print)


def test_what_has_no_study_is_said(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run directory"):
        orchestrator.api.dashboard.serve(tmp_path, host="127.0.0.1", port=0, ready=print)
    path = make(None)
    with pytest.raises(EnvironmentFailure, match="give another port"):
        orchestrator.api.dashboard.serve(path, host="192.0.2.1", port=9, ready=print)
    (path / "study.journal").unlink()
    with pytest.raises(InputError, match=r"study\.journal is missing"):
        orchestrator.api.dashboard.serve(path, host="127.0.0.1", port=0, ready=print)
