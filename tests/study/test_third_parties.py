"""What plugins and users' files can do wrong in the middle of a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECTS, Cli, Project


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.slow
def test_search_goes_on_when_a_method_dies_on_being_asked_and_another_writes_nothing(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    installer("awkward")
    chosen = ["--method", "awkward-missing", "--method", "awkward-deadly", "--method", "static-int8"]
    done = cli("search", *project.onnx, *chosen, "--trials", "3", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert any("awkward-deadly is not offered: it failed: the process died of SIGSEGV" in note for note in found["notes"])
    assert "note: awkward-deadly is not offered" in done.stdout
    missing = [c for c in found["candidates"] if any(s["method"] == "awkward-missing" for s in c["recipe"])]
    assert missing
    assert all(c["failure"]["kind"] == "error" and "never-written.onnx" in c["failure"]["message"] for c in missing)
    assert any(c["state"] == "complete" for c in found["candidates"])


@pytest.mark.slow
def test_method_without_a_name_stops_nobody(cli: Cli, project: Project, installer: Callable[..., None]) -> None:
    installer("undeclared")
    assert "Undeclared must declare `name`, str" in cli("plugins", "list").stdout
    assert cli("search", *project.onnx, "--trials", "1", "--output", "run").returncode == 0


@pytest.mark.slow
def test_run_stops_when_the_data_are_others_after_the_worker_was_started_again(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    installer("killer")
    data = project.folder / "data.py"
    data.write_text(data.read_text().replace("np.random.default_rng(0)", "np.random.default_rng()"))
    done = cli(
        *("search", "--model", project.onnx[1], "--data", project.ref("data:splits"), "--method", "killer"),
        *("--method", "static-int8", "--trials", "6", "--output", "run"),
    )
    assert done.returncode == 4, done.stderr
    assert "the model or the data came out different when they were loaded again" in done.stderr


@pytest.mark.slow
def test_run_is_complete_with_a_note_when_the_test_split_has_no_labels(cli: Cli, project: Project) -> None:
    data = project.folder / "data.py"
    data.write_text(
        data.read_text()
        + "\n\ndef unlabelled_test():\n    made = splits()\n    made['test'] = (made['test'][0], None)\n    return made\n"
    )
    done = cli(
        *("search", "--model", project.onnx[1], "--data", project.ref("data:unlabelled_test"), "--method", "static-int8"),
        *("--trials", "1", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    found = results(cli.folder / "run")
    assert any("the test split has no labels" in note for note in found["notes"])
    assert found["baseline"]["quality"]["test"] is None


def test_method_that_recovers_is_refused_alone(cli: Cli, project: Project) -> None:
    done = cli(
        *("search", "--model", project.ref("model:net"), "--data", project.ref("data:splits")),
        *("--method", "distillation", "--trials", "2", "--output", "run"),
    )
    assert done.returncode == 2
    assert "no recipe can be built from distillation alone" in done.stderr
    assert not (cli.folder / "run").exists()


@pytest.mark.slow
def test_optional_input_of_forward_may_be_given(cli: Cli, project: Project) -> None:
    shutil.copy(PROJECTS / "two_inputs" / "two.py", project.folder)
    done = cli(
        *("search", "--model", project.ref("two:net"), "--data", project.ref("two:splits"), "--method", "dynamic-int8"),
        *("--trials", "1", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr
    assert results(cli.folder / "run")["task"]["metric"] == "fidelity"
