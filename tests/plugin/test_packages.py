"""`orchestrate plugins new` writes a package that works at once; `orchestrate plugins check` says what fails and why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.plugin.package_check import install
from tests.conftest import Cli, Project
from tests.conftest import install as lay_out


@pytest.mark.slow
def test_new_package_installs_passes_its_tests_and_takes_part_in_a_search(cli: Cli, project: Project) -> None:
    done = cli("plugins", "new", "half-weights")
    assert done.returncode == 0, done.stderr
    folder = cli.folder / "half-weights"
    install(folder, cli.packages)
    environment = {**os.environ, "PYTHONPATH": str(cli.packages), "OMP_NUM_THREADS": "1"}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout
    done = cli("search", *project.onnx, "--method", "half-weights", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    (candidate,) = json.loads((cli.folder / "run" / "results.json").read_text())["candidates"]
    assert candidate["state"] == "complete" and candidate["recipe"][0]["method"] == "half-weights"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["Bad_Name"], "'Bad_Name' cannot name a plugin: use small letters, digits and hyphens"),
        (["2fast"], "cannot name a plugin"),
        (["lambda"], "cannot name a plugin"),
        (["on-the-fly"], "names that begin with 'on-' are steps that choose a runtime"),
        (["json"], "a module is named 'json' already"),
        (["pruning"], "plugin 'pruning' of model-orchestrator"),
        (["static-int8"], "a method is named 'static-int8' already"),
        (["fine", "--output", "."], "'.' is there already: give a new folder with --output"),
    ],
)
def test_name_that_cannot_be_used_is_one_line(cli: Cli, arguments: list[str], line: str) -> None:
    (cli.folder / "something").touch()
    done = cli("plugins", "new", *arguments)
    assert done.returncode == 2
    assert line in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.name for path in cli.folder.iterdir()] == ["something"]


def test_check_says_what_fails_and_how_to_mend_it(cli: Cli) -> None:
    lay_out(cli.packages, "careless")
    done = cli("plugins", "check", "careless", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["package"], found["version"], found["ok"]) == ("careless", "1.0", False)
    failed = {(check["of"], check["check"]): check for check in found["checks"] if check["outcome"] == "failed"}
    better = failed["metric errors", "better outputs score better"]
    assert better["fix"] == "`direction` says maximize: is that so?"
    assert ("metric errors", "missing labels or reference are one line") in failed
    told = failed["plugin careless", "events bear what a search tells"]
    assert "'NoneType' object has no attribute 'validation'" in told["problem"]
    plain = cli("plugins", "check", "careless")
    assert plain.returncode == 1
    assert "FAILED  metric errors, better outputs score better: good outputs score" in plain.stdout
    assert "        fix: `direction` says maximize: is that so?" in plain.stdout


def test_check_reports_a_package_that_cannot_be_imported(cli: Cli) -> None:
    lay_out(cli.packages, "broken", "import no_such_module")
    done = cli("plugins", "check", "broken")
    assert done.returncode == 1
    assert "FAILED  plugin broken, can be used: ModuleNotFoundError: No module named 'no_such_module'" in done.stdout


def test_check_of_what_is_no_package_is_one_line(cli: Cli, tmp_path: Path) -> None:
    for name, line in (
        ("no-such-package", "unknown package 'no-such-package'"),
        ("pytest", "package 'pytest' brings no plugin"),
        (str(tmp_path), "has no pyproject.toml"),
    ):
        done = cli("plugins", "check", name)
        assert done.returncode == 2 and line in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_checks_that_did_not_come_to_their_end_are_no_success(cli: Cli) -> None:
    assert cli("plugins", "new", "half-weights").returncode == 0
    (cli.folder / "half-weights" / "tests").mkdir()
    (cli.folder / "half-weights" / "tests" / "conftest.py").write_text("import no_such_module\n")
    (cli.folder / "half-weights" / "tests" / "test_more.py").write_text("def test_more():\n    assert True\n")
    done = cli("plugins", "check", "./half-weights")
    assert done.returncode == 1
    assert "FAILED  the checks, are run to their end: pytest ended with 4: " in done.stdout and "no_such_module" in done.stdout


def test_own_options_of_pytest_are_not_those_of_the_kit_and_looking_at_nothing_is_no_success(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(cli.packages, "elsewhere")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    done = cli("plugins", "check", "elsewhere", "--json")
    found = json.loads(done.stdout)
    outcomes = {check["outcome"] for check in found["checks"]}
    assert "passed" in outcomes, "the plugin itself can be registered"
