"""Two runs side by side: what changed, and what may not be compared."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import orchestrator
from orchestrator.cli.compare_runs import command
from orchestrator.errors import InputError
from orchestrator.report.comparing import compared
from orchestrator.report.comparison import headline, print_comparison, render_comparison
from orchestrator.report.results import write_results
from orchestrator.values.results import RunResult

NAMES = ("runs/a", "runs/b")


def changed(run: RunResult) -> RunResult:
    """The same search with another seed and version, without its best model, with a faster one in its place."""
    best = run.candidate("5be27f6a10")
    faster = dataclasses.replace(
        best, id="ffffffffff", latency=[dataclasses.replace(best.latency[0], median_ms=0.6), *best.latency[1:]]
    )
    return dataclasses.replace(
        run,
        candidates=[faster if c is best else c for c in run.candidates],
        front=[name if name != best.id else faster.id for name in run.front],
        recommended=faster.id,
        search={**run.search, "seed": 1},
        environment={**run.environment, "versions": {**run.environment["versions"], "onnxruntime": "1.32.0"}},
        target=dataclasses.replace(run.target, limits={**run.target.limits, "max_latency_ms": 1.0}),
    )


def test_run_beside_itself_has_no_changes(full_run: RunResult) -> None:
    found = compared(full_run, full_run, NAMES)
    for part in ("task", "target", "options", "versions", "plugins", "host", "baseline", "recommended", "notes"):
        assert getattr(found, part) == []
    assert {member.on for member in found.front} == {"both"}
    assert found.hypervolume.a == found.hypervolume.b
    assert found.hypervolume.a is not None
    assert 0 < found.hypervolume.a < 1
    assert "task, target, options, versions and plugins are the same" in headline(found)


def test_what_changed_is_said_and_a_better_model_is_worth_more(full_run: RunResult) -> None:
    found = compared(full_run, changed(full_run), NAMES)
    plain = found.plain()
    assert plain["options"] == {"seed": {"a": 0, "b": 1}}
    assert plain["versions"] == {"onnxruntime": {"a": "1.31.1", "b": "1.32.0"}}
    assert plain["target"] == {"max_latency_ms": {"a": 2.0, "b": 1.0}}
    assert plain["recommended"]["median_ms"] == {"a": 1.12, "b": 0.6}
    assert plain["plugins"] == plain["baseline"] == {}
    assert plain["budget"]["total_s"] == {"a": 214.0, "b": 214.0}
    sides = {member.identifier: member.on for member in found.front}
    assert sides["5be27f6a10"] == "a"
    assert sides["ffffffffff"] == "b"
    assert sides["3fa1c09b2e"] == "both"
    assert found.hypervolume.a is not None
    assert found.hypervolume.b is not None
    assert found.hypervolume.b > found.hypervolume.a
    json.dumps(plain, allow_nan=False)


def test_hypervolumes_of_different_evidence_or_tasks_are_not_compared(full_run: RunResult, host_run: RunResult) -> None:
    other = compared(full_run, host_run, NAMES)
    assert other.hypervolume.a is None
    assert "another kind of evidence" in other.hypervolume.reason
    assert any("different evidence (estimated, measured-on-target)" in note for note in other.notes)
    task = dataclasses.replace(full_run, task=dataclasses.replace(full_run.task, digest="0" * 64))
    found = compared(full_run, task, NAMES)
    assert found.hypervolume.reason == "the runs are of other models, data or metrics"
    assert "two different tasks" in found.notes[0]


def test_times_measured_on_other_hosts_are_not_compared(host_run: RunResult) -> None:
    host = {**host_run.environment, "host": {**host_run.environment["host"], "cpu": "another"}}
    assert compared(host_run, host_run, NAMES).hypervolume.a is not None
    found = compared(host_run, dataclasses.replace(host_run, environment=host), NAMES)
    assert found.hypervolume.a is None
    assert "different devices or hosts" in found.notes[0]


@pytest.mark.parametrize("name", ["empty_run", "failed_run", "host_run"])
def test_every_run_can_be_compared_and_shown(name: str, full_run: RunResult, request: pytest.FixtureRequest) -> None:
    found = compared(full_run, request.getfixturevalue(name), NAMES)
    page = render_comparison(found)
    assert page.rstrip().endswith("</html>")
    assert "<script>alert" not in page
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80))
    assert all(len(line) <= 80 for line in out.getvalue().splitlines() if not line.startswith(("A: ", "B: ")))


def test_command_writes_page_and_json(full_run: RunResult, tmp_path: Path) -> None:
    for name, run in (("a", full_run), ("b", changed(full_run))):
        (tmp_path / name).mkdir()
        write_results(run, tmp_path / name / "results.json")
    page = tmp_path / "page.html"
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(page)]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["options"] == {"seed": {"a": 0, "b": 1}}
    assert "ffffffffff" in page.read_text()
    shown = CliRunner().invoke(command, arguments).stdout
    assert "the recommended recipe changed" in " ".join(shown.split())


def test_side_that_is_no_run_is_named(full_run: RunResult, tmp_path: Path) -> None:
    write_results(full_run, tmp_path / "results.json")
    with pytest.raises(InputError, match=r"there is no .*elsewhere"):
        orchestrator.compare_runs(tmp_path, tmp_path / "elsewhere")
    shutil.copy(tmp_path / "results.json", tmp_path / "odd.json")
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(InputError, match=r"odd\.json is not the results of a run"):
        orchestrator.compare_runs(tmp_path / "odd.json", tmp_path)
