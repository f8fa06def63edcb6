"""Several targets in one folder: begun, stopped and gone on with as one."""

import json
import os
import signal
from pathlib import Path

import pytest

from orchestrator.api.search_targets import Targets
from orchestrator.errors import InputError
from orchestrator.values.search import SearchOptions
from orchestrator.values.task import TaskSpec
from tests.conftest import Cli, Project
from tests.study.test_robustness import results, wait_for_candidates


def test_each_target_has_a_folder_of_its_own_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text((Path("hardware_profiles") / "raspberry-pi-5.toml").read_text())
    several = Targets.begin(SearchOptions(), ["raspberry-pi-4", "host", str(mine)], tmp_path / "runs")
    assert [run.folder for run in several.runs] == ["raspberry-pi-4", "host", "mine"]
    assert [run.options.target for run in Targets.open(tmp_path / "runs").runs] == ["raspberry-pi-4", "host", str(mine)]
    twice = Targets.begin(SearchOptions(), ["host", "host"], tmp_path / "twice")
    assert [run.folder for run in twice.runs] == ["host-1", "host-2"]


def test_what_was_named_from_one_folder_is_found_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path("hardware_profiles") / "raspberry-pi-5.toml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(text)
    Path("model.onnx").touch()
    Path("arrays.npz").touch()
    said = SearchOptions(task=TaskSpec(model="model.onnx", data="arrays.npz"), store="kept")
    Targets.begin(said, ["mine.toml", "host"], "both")
    mine, host = (run.options for run in Targets.open("both").runs)
    assert (mine.target, host.target) == (str(tmp_path / "mine.toml"), "host")
    assert (host.task.model, host.task.data) == (str(tmp_path / "model.onnx"), str(tmp_path / "arrays.npz"))
    assert host.store == str(tmp_path / "kept")


def test_a_mistake_in_the_last_target_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raspberry-pi-44"):
        Targets.begin(SearchOptions(), ["host", "raspberry-pi-44"], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    Targets.begin(SearchOptions(), ["host", "raspberry-pi-4"], tmp_path / "runs")
    with pytest.raises(InputError, match="continue with: orchestrate resume"):
        Targets.begin(SearchOptions(), ["host", "raspberry-pi-4"], tmp_path / "runs")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    with pytest.raises(InputError, match="not an empty folder"):
        Targets.begin(SearchOptions(), ["host", "raspberry-pi-4"], tmp_path / "full")


def test_a_damaged_list_of_targets_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "targets.json").write_text('{"schema": 1')
    assert Targets.holds(tmp_path)
    with pytest.raises(InputError, match="was not written by this version"):
        Targets.open(tmp_path)


@pytest.mark.slow
def test_what_is_stopped_in_the_second_target_goes_on_there(cli: Cli, project: Project) -> None:
    both, targets = cli.folder / "both", ("raspberry-pi-4", "raspberry-pi-5", "host")
    named = [word for target in targets for word in ("--target", target)]
    process = cli.start("search", *project.onnx, *named, "--trials", "3", "--output", "both")
    wait_for_candidates(process, both / "raspberry-pi-5", 2)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == f"orchestrate: interrupted; continue with: orchestrate resume {both}"
    first = (both / "raspberry-pi-4" / "results.json").read_text()
    kept = {p.name for p in (both / "raspberry-pi-5" / "work" / "candidates").glob("*.json")}
    done = cli("resume", "both", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["target"]["profile"] for one in found] == list(targets)
    assert [len(one["candidates"]) for one in found] == [3, 3, 3]
    assert (both / "raspberry-pi-4" / "results.json").read_text() == first, "what was done is not done again"
    assert kept <= {p.name for p in (both / "raspberry-pi-5" / "work" / "candidates").glob("*.json")}
    ids = [{c["id"] for c in results(both / target)["candidates"]} for target in targets]
    assert ids[0] & ids[1], "the second begins with what was built for the first"


@pytest.mark.slow
def test_a_new_budget_is_every_targets_although_it_was_stopped_in_the_first(cli: Cli, project: Project) -> None:
    both, named = cli.folder / "both", ["--target", "raspberry-pi-4", "--target", "raspberry-pi-5"]
    assert cli("search", *project.onnx, *named, "--trials", "1", "--output", "both").returncode == 0
    process = cli.start("resume", "both", "--trials", "3")
    wait_for_candidates(process, both / "raspberry-pi-4", 3)  # its original, that of before, and another
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    done = cli("resume", "both", "--json")
    assert done.returncode == 0, done.stderr
    assert [len(one["candidates"]) for one in json.loads(done.stdout)] == [3, 3]
