"""A broken plugin is listed with its package, version and reason, and stops only searches that name it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plugin.testing import sample_run
from orchestrator.report.results import write_results
from tests.conftest import PROJECTS, Cli, Project, install

SEARCHES = Path(__file__).parents[2] / "searches"
WORKING = (PROJECTS / "copier" / "copier.py").read_text()
USED_NAME = WORKING.replace('"mine"', '"static-int8"', 1)
BROKEN = {
    "raises": ("raise RuntimeError('no licence')", None, "RuntimeError: no licence"),
    "exits": ("raise SystemExit(3)", None, "SystemExit: 3"),
    "syntax": ("def", None, "SyntaxError: invalid syntax"),
    "misspelt": (WORKING.replace("orchestrator_methods", "orchestrator_metods"), None, "unknown hook 'orchestrator_metods'"),
    "argument": (WORKING.replace("methods()", "methods(task)"), None, "Argument(s) {'task'} are declared in the hookimpl"),
    "raising-hook": (WORKING.replace("return [Mine()]", "return 1 / 0"), None, "orchestrator_methods raised ZeroDivisionError"),
    "wrong-type": (WORKING.replace("[Mine()]", "[Mine]"), None, "orchestrator_methods must return a list of Method instances"),
    "no-file": (
        "from pathlib import Path\nfrom orchestrator.plugin import hookimpl\n\n\n"
        "@hookimpl\ndef orchestrator_searches():\n    return [Path('nowhere.toml')]\n",
        None,
        "'nowhere.toml' must be a TOML file that is there",
    ),
    "used-name": (
        USED_NAME,
        None,
        "it brings the method 'static-int8', which plugin 'quantization' (model-orchestrator) brings too",
    ),
    "used-format": (
        "from orchestrator.plugin import hookimpl\n\n\n@hookimpl\ndef orchestrator_reports():\n    return {'html': str}\n",
        None,
        "it brings the report 'html', which plugin 'reports' (model-orchestrator) brings too",
    ),
    "newer": (WORKING, "model-orchestrator>=2", "it needs model-orchestrator >=2, and this is 0.1.0"),
}


@pytest.fixture
def broken(cli: Cli) -> Cli:
    """The command line with every kind of broken plugin installed at once."""
    for name, (source, requires, _) in BROKEN.items():
        install(cli.packages, f"acme-{name}", source, version="1.2", requires=requires)
    return cli


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.slow
def test_every_broken_plugin_is_listed_with_its_reason_and_searches_go_on(broken: Cli, project: Project) -> None:
    done = broken("plugins", "list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    for name, (_, _, reason) in BROKEN.items():
        row = rows[f"acme-{name}"]
        assert (row["package"], row["version"], row["usable"]) == (f"acme-{name}", "1.2", False)
        assert reason in row["reason"], name
        assert row["brings"] == {}
    assert rows["quantization"]["usable"] and "static-int8" in rows["quantization"]["brings"]["methods"]
    said = broken("plugins", "list").stdout
    assert "acme-raises  (acme-raises 1.2)  cannot be used: RuntimeError: no licence" in said
    done = broken("search", *project.onnx, "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    found = results(broken.folder / "run")
    assert found["environment"]["plugins"]["acme-raises"] == "acme-raises 1.2 (unusable: RuntimeError: no licence)"
    assert any("acme-newer 1.2) could not be used: it needs model-orchestrator >=2" in note for note in found["notes"])


@pytest.mark.slow
def test_search_that_names_something_of_a_broken_plugin_stops_with_its_reason(broken: Cli, project: Project) -> None:
    done = broken("search", *project.onnx, "--method", "mine", "--trials", "1", "--output", "run")
    assert done.returncode == 2
    assert "unknown method 'mine'" in done.stderr
    assert "plugin 'acme-newer' could not be used: it needs model-orchestrator >=2" in done.stderr
    contested = broken("search", *project.onnx, "--method", "static-int8", "--trials", "1", "--output", "run")
    assert contested.returncode == 2
    assert "plugins 'quantization' and 'acme-used-name' both bring the method 'static-int8'" in contested.stderr
    done = broken(
        *("search", *project.onnx, "--method", "static-int8", "--without-plugin", "acme-used-name"),
        *("--trials", "1", "--output", "run"),
    )
    assert done.returncode == 0, done.stderr


def test_plugin_is_switched_off_by_its_name_and_by_its_packages(
    cli: Cli, project: Project, installer: Callable[..., None]
) -> None:
    install(cli.packages, "acme", WORKING, entry="acme")
    (cli.packages / "acme-1.0.dist-info" / "entry_points.txt").write_text("[orchestrator]\nmine = acme\n")
    for name in ("mine", "acme"):
        done = cli("search", *project.onnx, "--method", "mine", "--without-plugin", name, "--dry-run")
        assert done.returncode == 2 and "unknown method 'mine'" in done.stderr, done.stderr
    done = cli("search", *project.onnx, "--without-plugin", "acmee", "--dry-run")
    assert done.returncode == 2 and "unknown plugin 'acmee'; did you mean acme" in done.stderr


@pytest.mark.slow
def test_run_names_all_plugins_and_refuses_to_go_on_with_another_version(cli: Cli, project: Project) -> None:
    observer = (
        "from orchestrator.plugin import hookimpl\n\n\n@hookimpl\ndef orchestrator_trial_finished(trial):\n    print(trial.id)\n"
    )
    install(cli.packages, "watcher", observer)
    begun = cli("search", *project.onnx, "--method", "static-int8", "--trials", "1", "--output", "run")
    assert begun.returncode == 0, begun.stderr
    assert results(cli.folder / "run")["environment"]["plugins"]["watcher"] == "watcher 1.0"
    (cli.packages / "watcher-1.0.dist-info").rename(cli.packages / "watcher-1.1.dist-info")
    metadata = cli.packages / "watcher-1.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    done = cli("resume", "run", "--trials", "2")
    assert done.returncode == 2
    assert "watcher: watcher 1.0 before, watcher 1.1 now" in done.stderr


@pytest.mark.slow
def test_events_are_told_in_order_and_a_plugin_that_raises_is_told_no_more(
    cli: Cli, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(cli.packages, "follower")
    search = ("search", *project.onnx, "--method", "static-int8")
    assert cli(*search, "--trials", "2", "--output", "run").returncode == 0
    lines = [json.loads(line) for line in (cli.folder / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "trial", "trial", "ended"]
    assert lines[0] == {
        "event": "started",
        "known": 0,
        "resumed": False,
        "baseline": "baseline",
        "run": str(cli.folder / "run"),
    }
    assert {line["id"] for line in lines[1:3]} == {c["id"] for c in results(cli.folder / "run")["candidates"]}
    (cli.folder / "events.jsonl").unlink()
    monkeypatch.setenv("FAIL", "1")
    done = cli(*search, "--trials", "2", "--output", "again")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (cli.folder / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "trial"]
    told = "plugin 'follower' gets no further events: orchestrator_trial_finished raised ValueError: the server is gone"
    assert told in results(cli.folder / "again")["notes"]


def test_report_format_that_raises_is_one_line_and_the_others_go_on(cli: Cli, installer: Callable[..., None]) -> None:
    source = "from orchestrator.plugin import hookimpl\n\n\ndef slides(run):\n    return run.no_such_field\n\n\n"
    installer("acme", source + "@hookimpl\ndef orchestrator_reports():\n    return {'slides': slides}\n")
    (cli.folder / "run").mkdir()
    write_results(sample_run(), cli.folder / "run" / "results.json")
    done = cli("report", "run", "--format", "slides")
    assert done.returncode == 2
    assert "the format 'slides' could not render this run: AttributeError: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert cli("report", "run", "--format", "markdown").returncode == 0


def test_json_is_alone_on_standard_output_whatever_plugins_print(cli: Cli, installer: Callable[..., None]) -> None:
    installer("noisy")
    done = cli("plugins", "list", "--json")
    assert done.returncode == 0
    assert any(row["name"] == "noisy" for row in json.loads(done.stdout))
    assert "hello from a plugin" in done.stderr and "and from its C library" in done.stderr


def test_plugin_that_takes_the_default_searchs_name_stops_only_who_names_it(cli: Cli, project: Project) -> None:
    install(cli.packages, "quick-taker")
    done = cli("search", *project.onnx, "--dry-run")
    assert done.returncode == 0, done.stderr
    (cli.folder / "mine.toml").write_text((SEARCHES / "quick.toml").read_text().replace('name = "quick"', 'name = "mine"'))
    named = cli("search", *project.onnx, "--search", "mine.toml", "--dry-run")
    assert named.returncode == 2 and "both bring the sampler 'ehvi'" in named.stderr


@pytest.mark.slow
def test_recipe_is_built_again_without_a_plugin_that_brings_the_same_method(cli: Cli, project: Project) -> None:
    done = cli("search", *project.onnx, "--method", "static-int8", "--trials", "1", "--output", "run")
    assert done.returncode == 0, done.stderr
    install(cli.packages, "acme", USED_NAME)
    recipe = next(str(path) for path in (cli.folder / "run" / "front").glob("*/recipe.toml") if "static-int8" in path.read_text())
    contested = cli("build", recipe, "--output", "again")
    assert contested.returncode == 2 and "switch one off with --without-plugin" in contested.stderr
    done = cli("build", recipe, "--output", "again", "--without-plugin", "acme")
    assert done.returncode == 0, done.stderr
    state = cli.folder / "run" / "work" / "run.json"
    stored = json.loads(state.read_text())
    stored["request"]["without_plugins"] = ["acme", "gone-since"]
    state.write_text(json.dumps(stored))
    resumed = cli("resume", "run", "--trials", "1")
    assert resumed.returncode == 0, resumed.stderr
