"""A run whose surroundings fail ends with one line and exit code 4, and goes on when they are fixed."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.api.search import surroundings
from orchestrator.errors import EnvironmentFailure, InputError, RunInUseError
from orchestrator.report.results import read_results
from orchestrator.study.budget import keeping_elapsed
from orchestrator.study.run.directory import RunDirectory
from tests.conftest import Cli, Project, install
from tests.study.conftest import Make
from tests.study.killing import left_over
from tests.study.test_robustness import descendants, gone, results, wait_for_candidates


def last_line(error: str) -> str:
    """What the user is told; a traceback or a second message would be more than one line."""
    lines = [line for line in error.strip().splitlines() if line.startswith(("orchestrate:", "Traceback"))]
    assert len(lines) == 1, error
    return lines[0]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder as a file system that cannot be written, for root too."""
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root alone")
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        deadline = time.monotonic() + 60
        # Refused as long as a file of it is open to be written, which the search that runs there does now and then.
        while subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=False).returncode:
            assert time.monotonic() < deadline, "the folder cannot be made read-only"
            time.sleep(0.05)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.slow
def test_read_only_run_can_be_reported_and_not_resumed(cli: Cli, project: Project) -> None:
    assert cli("search", *project.onnx, "--trials", "1", "--output", "run").returncode == 0
    with read_only(cli.folder / "run"):
        done = cli("resume", "run", "--trials", "2")
        assert done.returncode == 4, done.stderr
        said = last_line(done.stderr)
        assert "cannot be written: Read-only file system; fix it, or copy the run to where it can be written" in said
        report = cli("report", "run", "--format", "markdown")
        assert report.returncode == 0, report.stderr
        assert "baseline" in report.stdout or "original" in report.stdout
    assert cli("resume", "run", "--trials", "2").returncode == 0


@pytest.mark.slow
def test_run_directory_that_becomes_read_only_ends_the_run_which_can_go_on(cli: Cli, project: Project) -> None:
    process = cli.start("search", *project.onnx, "--trials", "30", "--output", "run")
    wait_for_candidates(process, cli.folder / "run", 2)
    with read_only(cli.folder / "run"):
        _, err = process.communicate(timeout=120)
    # A file that is open keeps the mount it was opened in: what was under way there may still be written.
    assert process.returncode == 4, err
    assert "orchestrate resume" in last_line(err)
    done = cli("resume", "run", "--trials", "3")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_study_that_is_deleted_is_made_again_from_the_records(cli: Cli, project: Project) -> None:
    process = cli.start("search", *project.onnx, "--trials", "30", "--seed", "3", "--output", "run")
    run = cli.folder / "run"
    wait_for_candidates(process, run, 4)
    (run / "study.journal").unlink()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    said = last_line(err)
    assert "study.journal' was deleted during the run; fix it, then continue with: orchestrate resume" in said
    before = {c.id: c.trial for c in RunDirectory(run).read_candidates().values() if c.trial is not None}
    wanted = len(before) + 2
    done = cli("resume", "run", "--trials", str(wanted))
    assert done.returncode == 0, done.stderr
    found = {c.id: c.trial for c in read_results(run).candidates}
    assert before.items() <= found.items()
    assert len(found) == len(set(found.values())) == wanted
    told = trials_told(run)
    assert {name: told[name] for name in found} == {name: [number] for name, number in found.items()}


def trials_told(run: Path) -> dict[str, list[int]]:
    """The numbers of the trials that the study has for each candidate; all of them have ended."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(run / "study.journal"))))
    found: dict[str, list[int]] = {}
    for trial in study.get_trials(deepcopy=False):
        if "candidate" in trial.user_attrs:
            assert trial.state.is_finished()
            found.setdefault(trial.user_attrs["candidate"], []).append(trial.number)
    return found


@pytest.mark.slow
def test_run_whose_work_is_deleted_ends_with_one_line(cli: Cli, project: Project) -> None:
    process = cli.start("search", *project.onnx, "--trials", "30", "--output", "run")
    wait_for_candidates(process, cli.folder / "run", 3)
    shutil.rmtree(cli.folder / "run" / "work", ignore_errors=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "deleted during the run; fix it, then begin again" in last_line(err)


def test_second_search_into_a_run_in_use_is_told_by_whom(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with run.locked():
        (run.work / "run.json").write_text("{}")
        with pytest.raises(RunInUseError, match=f"in use by process {os.getpid()} since"):
            RunDirectory.create(tmp_path / "run")
        with pytest.raises(RunInUseError, match=f"in use by process {os.getpid()} since"), RunDirectory.open(run.path).locked():
            pass
    with pytest.raises(InputError, match="holds a run already"):
        RunDirectory.create(tmp_path / "run")
    with RunDirectory.open(run.path).locked():
        pass  # a lock file that a killed process left is no lock


def test_what_killed_processes_left_is_cleared_away(tmp_path: Path, make: Make) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_candidate(make("done"))
    (run.work / "run.json").write_text("{}")
    for folder in (
        run.folder("done"),
        run.folder("half"),
        run.work / "publishing",
        run.work / "old-front",
        run.path / "recommended",
    ):
        folder.mkdir()
    (run.work / "old-recommended").mkdir()
    (run.work / "old-front" / "model.onnx").touch()
    (run.candidates / ".done.json.1-ab.tmp").touch()
    (run.path / ".results.json.1-ab.tmp").touch()
    (run.work / "input0.partial.npy").touch()
    (run.work / "baseline" / "validation.partial").mkdir(parents=True)
    (run.work / "baseline" / "validation.partial" / "output0.npy").touch()
    assert len(left_over(run.path)) == 8
    with run.locked():
        pass
    assert left_over(run.path) == []
    assert run.folder("done").is_dir()
    assert (run.path / "front" / "model.onnx").is_file(), "killed while it was replaced: the old one comes back"
    assert list(run.read_candidates()) == ["done"]


def test_what_records_no_longer_name_is_deleted(tmp_path: Path, make: Make) -> None:
    run = RunDirectory.create(tmp_path / "run")
    kept = make("kept")
    assert kept.artifact is not None
    known = {
        "kept": replace(kept, artifact=replace(kept.artifact, path="work/candidates/kept/model.onnx")),
        "dropped": replace(kept, id="dropped", artifact=replace(kept.artifact, path=None)),
        "failed": replace(kept, id="failed", artifact=None),
    }
    for name in (*known, "under-way"):
        (run.folder(name) / "test.work").mkdir(parents=True)
        (run.folder(name) / "model.onnx").touch()
    run.drop_unreferenced(known)
    assert sorted(path.name for path in run.candidates.iterdir()) == ["kept", "under-way"]
    assert [path.name for path in run.folder("kept").iterdir()] == ["model.onnx"]


def test_elapsed_time_is_kept_while_a_candidate_takes_long(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    moments = iter(range(1, 1000000))
    with keeping_elapsed(run, lambda: float(next(moments)), every_s=0.01):
        time.sleep(0.1)
        assert RunDirectory(run.path).elapsed() == 0, "nothing is resumed that has not begun"
        (run.work / "run.json").write_text("{}")
        deadline = time.monotonic() + 60
        while RunDirectory(run.path).elapsed() < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert RunDirectory(run.path).elapsed() >= 3


def test_half_a_line_of_the_log_goes_before_the_next_process_writes_to_it(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.event(event="starts")
    with run.log.open("a") as log:
        log.write('{"time": "2026-01-0')
    with run.locked():
        run.event(event="starts")
    assert [json.loads(line)["event"] for line in run.log.read_text().splitlines()] == ["starts", "starts"]


@pytest.mark.parametrize("deleted", ["work", "study.journal", "work/candidates"])
def test_what_was_deleted_is_named_whatever_noticed_it_first(tmp_path: Path, deleted: str) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.study.touch()
    gone = run.path / deleted
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    noticed = gone if gone.suffix else gone / ".elapsed.123.tmp"
    with pytest.raises(EnvironmentFailure) as told, surroundings(run):
        noticed.read_bytes()
    assert str(told.value) == f"'{gone}' was deleted during the run; fix it, then begin again"


def test_candidate_is_not_written_where_the_run_was_deleted(tmp_path: Path, make: Make) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_candidate(make("baseline"))
    run._has_state = True
    with pytest.raises(EnvironmentFailure, match=r"run\.json' was deleted during the run"):
        run.write_candidate(make("a"))


def test_what_a_loss_of_power_left_of_small_files_is_borne(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.spend("building", 3.0)
    run.write_elapsed(12.34)
    assert (RunDirectory(run.path).elapsed(), RunDirectory(run.path).unrecorded) == (12.3, {"building": 3.0})
    (run.work / "elapsed").write_text("")
    assert (RunDirectory(run.path).elapsed(), RunDirectory(run.path).unrecorded) == (0.0, {})
    run.write_samples("a", ms=(1.0,))
    (run.samples / "a.npz").write_bytes(b"")
    run.write_samples("a", again_ms=(2.0,))
    with np.load(run.samples / "a.npz") as samples:
        assert {name: samples[name].tolist() for name in samples} == {"again_ms": [2.0]}


def test_second_ctrl_c_ends_at_once_and_leaves_nothing_running(rogue: Cli, project: Project) -> None:
    process = rogue.start("search", *project.onnx, "--method", "rogue-hang", "--trials", "3", "--output", "run")
    while '"rogue-hang' not in log_of(rogue.folder / "run"):
        assert process.poll() is None
    children = descendants(process.pid)
    assert children
    end = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < end:  # two at once may arrive as one
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert gone(children)


def log_of(run: Path) -> str:
    path = run / "log.jsonl"
    return path.read_text() if path.is_file() else ""


@pytest.mark.slow
def test_budget_of_time_is_kept_when_a_candidate_hangs(rogue: Cli, project: Project, budget_s: int) -> None:
    done = rogue("search", *project.onnx, "--method", "rogue-hang", "--timeout", f"{budget_s}s", "--output", "run")
    found = results(rogue.folder / "run")
    assert done.returncode in (0, 1), done.stderr
    assert found["search"]["ended"] == f"the budget of {budget_s} s is used up"
    assert found["seconds"]["total"] <= budget_s + 30
    assert found["seconds"]["building"] > found["seconds"]["overhead"], "what was broken off is no overhead"
    assert (rogue.folder / "run" / "report.html").is_file()


@pytest.mark.slow
def test_budget_of_time_is_kept_when_a_model_never_answers(cli: Cli, project: Project, budget_s: int) -> None:
    install(cli.packages, "endless")
    options = ["--target", "host", "--method", "endless", "--timeout", f"{budget_s}s", "--output", "run"]
    done = cli("search", *project.onnx, *options)
    assert done.returncode in (0, 1), done.stderr
    found = results(cli.folder / "run")
    assert "endless" in (cli.folder / "run" / "log.jsonl").read_text()
    assert found["search"]["ended"] == f"the budget of {budget_s} s is used up"
    assert found["seconds"]["total"] <= budget_s + 30
    assert found["seconds"]["measuring"] > found["seconds"]["overhead"]
