"""The command line as a whole: lean, and complete."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.program import COMMANDS, program
from orchestrator.plugin.testing import sample_run
from orchestrator.report.results import write_results
from tests.conftest import Cli, Project

HEAVY = ("torch", "onnx", "onnxruntime", "optuna", "numpy", "pydantic", "rich")


@pytest.mark.parametrize(
    "statement", ["import orchestrator", "from orchestrator.cli.program import program; program(['--help'])"]
)
def test_no_framework_is_loaded_when_the_package_is_imported_or_help_is_shown(statement: str) -> None:
    code = f"import sys\ntry:\n  exec({statement!r})\nexcept SystemExit: pass\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_plugins_load_no_framework_when_they_are_discovered() -> None:
    code = (
        "import sys; from orchestrator.plugin.registry import Registry; r = Registry.discover(); r.methods(); r.metrics();"
        "r.runtimes(); print(r.failed, 'torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() False False"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_the_help_that_the_list_shows(name: str) -> None:
    import click

    command = program.get_command(click.Context(program), name)
    assert command is not None
    assert command.help
    assert command.help.startswith(COMMANDS[name].rstrip("."))


def test_module_is_the_same_program(cli: Cli) -> None:
    done = cli("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("orchestrate, version ")


def test_dry_run_shows_space_and_plan_and_does_nothing(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--target", "raspberry-pi", "--max-drop", "1%", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "quantization: static-int8 (scheme u8s8 or s8s8" in done.stdout
    assert "channel-pruning: the model is an ONNX file, and this method works on torch modules" in done.stdout
    assert "max_drop 0.01" in done.stdout
    assert not list(cli.folder.iterdir())


@pytest.mark.slow
def test_json_stands_alone_on_stdout_when_asked_for(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--trials", "1", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((cli.folder / "run" / "results.json").read_text())
    assert "the original" in done.stderr


def test_exit_code_is_1_with_what_to_relax_when_nothing_meets_the_limits(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--trials", "1", "--max-size", "10B", "--output", "run")
    assert done.returncode == 1, done.stderr
    reason = json.loads((cli.folder / "run" / "results.json").read_text())["reason"]
    assert "No model satisfies every limit" in reason
    assert "--max-size 7" in reason and "instead of 0.01kB" in reason
    assert not (cli.folder / "run" / "recommended").exists()


@pytest.mark.slow
def test_one_run_directory_for_each_target_when_several_are_named(cli: Cli, project: Project) -> None:
    done = cli(
        *("search", *project.onnx, "--target", "raspberry-pi", "--target", "snapdragon"),
        *("--trials", "1", "--output", "both"),
    )
    assert done.returncode == 0, done.stderr
    assert (cli.folder / "both" / "raspberry-pi" / "results.json").is_file()
    assert (cli.folder / "both" / "snapdragon" / "results.json").is_file()
    logs = [(cli.folder / "both" / name / "log.jsonl").read_text() for name in ("raspberry-pi", "snapdragon")]
    again = cli("resume", "both", "--json")
    assert again.returncode == 0, again.stderr
    assert [one["target"]["profile"] for one in json.loads(again.stdout)] == ["raspberry-pi-4", "snapdragon-855-plus"]
    assert logs == [(cli.folder / "both" / name / "log.jsonl").read_text() for name in ("raspberry-pi", "snapdragon")]


def test_profiles_are_listed_shown_and_checked(cli: Cli) -> None:
    listed = cli("profiles", "list").stdout
    assert "raspberry-pi-4, raspberry-pi" in listed
    assert "host" in listed
    shown = cli("profiles", "show", "raspberry-pi", "--toml")
    (cli.folder / "mine.toml").write_text(shown.stdout)
    checked = cli("profiles", "check", "mine.toml")
    assert (checked.returncode, checked.stdout.strip()) == (0, "mine.toml: the profile is valid")


@pytest.mark.slow
def test_broken_plugin_is_listed_with_its_reason_and_the_search_goes_on(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    installer("cannot-import", "import a_module_that_is_not_there")
    installer("wrong-hook", "from orchestrator.plugin import hookimpl\n@hookimpl\ndef orchestrator_method(): return []\n")
    installer("wrong-type", "from orchestrator.plugin import hookimpl\n@hookimpl\ndef orchestrator_methods(): return 42\n")
    installer("leaves", "raise SystemExit('bye')")
    listed = cli("plugins", "list").stdout
    assert "cannot-import  (cannot-import 1.0)  cannot be used: ModuleNotFoundError" in listed
    assert "wrong-hook  (wrong-hook 1.0)  cannot be used: unknown hook 'orchestrator_method'" in listed
    assert "wrong-type  (wrong-type 1.0)  cannot be used: orchestrator_methods must return a list" in listed
    assert "leaves  (leaves 1.0)  cannot be used: SystemExit: bye" in listed
    done = cli("search", *project.onnx, "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    notes = json.loads((cli.folder / "run" / "results.json").read_text())["notes"]
    assert any("plugin cannot-import (cannot-import 1.0) could not be used" in note for note in notes)


def test_report_is_written_again_in_each_format(cli: Cli) -> None:
    (cli.folder / "run").mkdir()
    write_results(sample_run(), cli.folder / "run" / "results.json")
    for name, start in (("html", "<!doctype html>"), ("json", "{"), ("markdown", "#")):
        done = cli("report", "run", "--format", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.lower().startswith(start)
    assert "unknown format 'pdf'" in cli("report", "run", "--format", "pdf").stderr


def test_build_makes_the_same_file_again(cli: Cli, project: Project) -> None:
    arguments = ["--method", "static-int8", "--target", "raspberry-pi", "--trials", "1", "--output", "run"]
    assert cli("search", *project.onnx, *arguments).returncode == 0
    folder = next(p for p in (cli.folder / "run" / "front").iterdir() if p.name != "baseline")
    done = cli("build", str(folder / "recipe.toml"), "--output", "again")
    assert done.returncode == 0, done.stderr
    assert Path(cli.folder / "again" / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
